// SPDX-License-Identifier: Apache-2.0
// NF4 and FP4 as bitsandbytes computes them, bit for bit where the result does not depend on the order of
// a sum: that is all but the mean of the scales.
#include "quant/nf4.h"

#include <algorithm>
#include <cmath>

namespace maestrale {

namespace {

// The codes of a table by ascending value, and the midpoints between neighbours.
struct NearestCode {
  std::array<uint8_t, 16> order;
  std::array<float, 15> middle{};

  constexpr NearestCode(const FourBitTable& table, const std::array<uint8_t, 16>& ascending)
      : order(ascending) {
    for (size_t i = 0; i < 15; ++i) middle[i] = (table[order[i]] + table[order[i + 1]]) / 2.0f;
  }

  // Of two equally near values the lower one.
  uint8_t operator()(float value) const {
    size_t below = 0;
    for (float midpoint : middle) below += value > midpoint;
    return order[below];
  }
};

constexpr NearestCode kNearestNf4(kNf4Table, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
// Codes 0 and 8 are both zero; in this order small weights get the one that bitsandbytes gives them.
constexpr NearestCode kNearestFp4(kFp4Table, {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3});

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

}  // namespace

float quantize_four_bit(FourBitType type, const float* in, int n, uint8_t* codes) {
  const float absmax = largest_magnitude({in, size_t(n)});
  // The reciprocal of a denormal would overflow; its block becomes zeros.
  const float inverse = absmax >= 0x1p-126f ? 1.0f / absmax : 0.0f;
  const NearestCode& nearest = type == FourBitType::kNF4 ? kNearestNf4 : kNearestFp4;
  for (int k = 0; k < n / 2; ++k)
    codes[k] = uint8_t(nearest(in[2 * k] * inverse) << 4 | nearest(in[2 * k + 1] * inverse));
  return absmax;
}

void dequantize_four_bit(const FourBitTable& table, float absmax, const uint8_t* codes, int n, float* out) {
  for (int k = 0; k < n / 2; ++k) {
    out[2 * k] = table[codes[k] >> 4] * absmax;
    out[2 * k + 1] = table[codes[k] & 15] * absmax;
  }
}

std::array<float, 256> dynamic_map() {
  std::array<float, 256> map{};
  size_t count = 0;
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  for (int e = 0; e < 7; ++e) {
    // 2^e + 1 boundaries from 0.1 to 1, reckoned from the nearer end with one rounding each; the means of
    // neighbours are the values of this decade.
    const int n = 1 << e;
    const float step = (1.0f - 0.1f) / float(n), decade = float(std::pow(10.0, e - 6));
    const auto boundary = [&](int i) {
      return i < (n + 1) / 2 ? std::fma(step, float(i), 0.1f) : std::fma(-step, float(n - i), 1.0f);
    };
    for (int i = 0; i < n; ++i) {
      const float value = decade * ((boundary(i) + boundary(i + 1)) / 2.0f);
      map[count++] = value;
      map[count++] = -value;
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

NestedScales quantize_scales(std::span<const float> absmax) {
  NestedScales scales;
  if (absmax.empty()) return scales;
  double sum = 0;
  for (float value : absmax) sum += value;
  scales.offset = float(sum / double(absmax.size()));

  const std::array<float, 256> map = dynamic_map();
  std::array<float, 255> middle;
  for (size_t i = 0; i < 255; ++i) middle[i] = (map[i] + map[i + 1]) / 2.0f;
  for (size_t begin = 0; begin < absmax.size(); begin += kNestedBlock) {
    const auto block = absmax.subspan(begin, std::min<size_t>(kNestedBlock, absmax.size() - begin));
    float largest = 0;
    for (float value : block) largest = std::max(largest, std::fabs(value - scales.offset));
    const float inverse = largest >= 0x1p-126f ? 1.0f / largest : 0.0f;
    for (float value : block) {
      const float scaled = (value - scales.offset) * inverse;
      scales.codes.push_back(
          uint8_t(std::lower_bound(middle.begin(), middle.end(), scaled) - middle.begin()));
    }
    scales.nested_absmax.push_back(largest);
  }
  return scales;
}

std::vector<float> dequantize_scales(std::span<const float, 256> map, std::span<const uint8_t> codes,
                                     std::span<const float> nested_absmax, size_t nested_block,
                                     float offset) {
  std::vector<float> absmax(codes.size());
  for (size_t b = 0; b < codes.size(); ++b)
    absmax[b] = map[codes[b]] * nested_absmax[b / nested_block] + offset;
  return absmax;
}

}  // namespace maestrale
