// SPDX-License-Identifier: Apache-2.0
// Quantisers of the 256-weight super-blocks, in three steps:
//
//   1. each sub-block is fitted in binary32 by weighted least squares over a range of trial scales
//        Q2_K, Q4_K, Q5_K   w ~ scale * q - min
//        Q3_K, Q6_K         w ~ scale * q
//   2. the scales (and minima) become integers against the largest of them, and every code is chosen anew
//      for the scale as it will be read back
//   3. d (and dmin) are fitted once more, to the codes and integers now fixed, and the codes follow
//
// The first two are ggml's; the third lowers the error by 0.1 % (Q6_K) to 4 % (Q2_K).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/quantize_block.h"

namespace maestrale {

namespace {

// Sub-blocks of smaller weights become zero: binary16 could not hold their scale.
constexpr float kNegligible = 1e-15f;

// N values, four to a vector of the compiler's own: elementwise arithmetic and a sum of fixed order. Trial
// scales make up nearly all of the work, and plain loops over floats run at half the speed or less.
using Float4 [[gnu::vector_size(16)]] = float;

template <int N>
struct Values {
  Float4 v[N / 4];

  static Values load(const float* x) {
    Values values;
    std::memcpy(values.v, x, sizeof(values.v));
    return values;
  }

  template <class Function>
  static Values each(const Function& function) {
    Values values;
    for (int k = 0; k < N / 4; ++k) values.v[k] = function(k);
    return values;
  }

  friend Values operator+(const Values& a, float b) {
    return each([&](int k) { return a.v[k] + b; });
  }
  friend Values operator-(const Values& a, const Values& b) {
    return each([&](int k) { return a.v[k] - b.v[k]; });
  }
  friend Values operator*(const Values& a, const Values& b) {
    return each([&](int k) { return a.v[k] * b.v[k]; });
  }
  friend Values operator*(float a, const Values& b) {
    return each([&](int k) { return a * b.v[k]; });
  }
  friend Values abs(const Values& a) {
    return each([&](int k) { return a.v[k] < 0 ? -a.v[k] : a.v[k]; });
  }
  // round_clamped() of quantize_block.h for every element.
  friend Values round_clamped(const Values& a, float low, float high) {
    return each([&](int k) {
      const Float4 x = a.v[k], lows = Float4{} + low, highs = Float4{} + high;
      const Float4 raised = x < lows ? lows : x;
      return ((raised > highs ? highs : raised) + 0x1.8p23f) - 0x1.8p23f;
    });
  }
  friend float sum(const Values& a) {
    Float4 total = a.v[0];
    for (int k = 1; k < N / 4; ++k) total += a.v[k];
    return (total[0] + total[2]) + (total[1] + total[3]);
  }
};

// How one of the types with minima fits its sub-blocks: codes 0 .. top, trial scales
// (top + first + step * t) / (max - min) for t = 0 .. steps.
struct MinFit {
  float top;
  float scale_top;  // of the integer scales and minima
  float first, step;
  int steps;
  bool absolute_error;  // minimise sum weight * |error| instead of its square
  bool rms_weight;      // weight = rms(w) + |w| instead of |w|
};

constexpr MinFit kFitQ2_K{3, 15, -0.5f, 0.1f, 15, true, false};
constexpr MinFit kFitQ4_K{15, 63, -1.0f, 0.1f, 20, false, true};
constexpr MinFit kFitQ5_K{31, 63, -0.5f, 0.1f, 15, false, true};

struct ScaleMin {
  float scale = 0, min = 0;  // w ~ scale * q - min, min >= 0
};

template <int N>
ScaleMin fit_scale_min(const float* in, const MinFit& fit) {
  const Values<N> x = Values<N>::load(in);
  const float max = *std::max_element(in, in + N);
  float low = std::min(*std::min_element(in, in + N), 0.0f);  // the value of code 0
  if (max - low < kNegligible) return {0.0f, -low};
  const Values<N> weight = abs(x) + (fit.rms_weight ? std::sqrt(sum(x * x) / N) : 0.0f),
                  weighted_x = weight * x;
  const float sum_w = sum(weight), sum_wx = sum(weighted_x);

  const auto error_of = [&](const Values<N>& codes, float scale, float offset) {
    const Values<N> deviation = (scale * codes + offset) - x;
    return sum(weight * (fit.absolute_error ? abs(deviation) : deviation * deviation));
  };
  float best_scale = (max - low) / fit.top;
  float best_error =
      error_of(round_clamped(fit.top / (max - low) * (x + -low), 0.0f, fit.top), best_scale, low);
  for (int t = 0; t <= fit.steps; ++t) {
    const float inverse = (fit.top + fit.first + fit.step * float(t)) / (max - low);
    const Values<N> codes = round_clamped(inverse * (x + -low), 0.0f, fit.top),
                    weighted_codes = weight * codes;
    const float sum_wq = sum(weighted_codes), sum_wqq = sum(weighted_codes * codes);
    const float sum_wqx = sum(weighted_x * codes);
    const float determinant = sum_w * sum_wqq - sum_wq * sum_wq;
    if (!(determinant > 0)) continue;
    float scale = (sum_w * sum_wqx - sum_wx * sum_wq) / determinant;
    float offset = (sum_wqq * sum_wx - sum_wq * sum_wqx) / determinant;
    if (offset > 0) {  // a minimum is stored without sign
      offset = 0;
      scale = sum_wqx / sum_wqq;
    }
    const float error = error_of(codes, scale, offset);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
      low = offset;
    }
  }
  return {best_scale, -low};
}

// The nearest codes for the scales and minima as they will be read back.
template <class Block>
void choose_codes(const float* in, float top, const Block& block, uint8_t* codes, const uint8_t* scales,
                  const uint8_t* mins) {
  const float d = f16_to_f32(block.d), dmin = f16_to_f32(block.dmin);
  for (int s = 0; s < Block::kItems / Block::kSubItems; ++s) {
    const float scale = d * scales[s], min = dmin * mins[s];
    for (int i = Block::kSubItems * s; i < Block::kSubItems * (s + 1); ++i)
      codes[i] = scale == 0 ? 0 : uint8_t(round_clamped((in[i] + min) / scale, 0.0f, top));
  }
}

// Replaces d and dmin by those of the least squared error for the codes, integer scales and minima chosen;
// false when they stay.
template <class Block>
bool refit(const float* in, Block& block, const uint8_t* codes, const uint8_t* scales, const uint8_t* mins) {
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // sums over w ~ d * a - dmin * b
  for (int s = 0; s < Block::kItems / Block::kSubItems; ++s) {
    const double scale = scales[s], min = mins[s];
    for (int i = Block::kSubItems * s; i < Block::kSubItems * (s + 1); ++i) {
      const double a = scale * codes[i];
      aa += a * a;
      ab += a * min;
      bb += min * min;
      ax += a * double(in[i]);
      bx += min * double(in[i]);
    }
  }
  const double determinant = aa * bb - ab * ab;
  if (!(determinant > 1e-3 * aa * bb)) return false;  // a and b nearly parallel: rounding would decide
  const float d = float((ax * bb - ab * bx) / determinant), dmin = float((ax * ab - aa * bx) / determinant);
  if (!(d > 0 && dmin >= 0)) return false;
  block.d = f32_to_f16(d);
  block.dmin = f32_to_f16(dmin);
  return true;
}

// Sets d and dmin of `block` and writes its codes and integer scales and minima for the caller to pack.
template <class Block>
void quantize_with_min(const float* in, const MinFit& fit, Block& block, uint8_t* codes, uint8_t* scales,
                       uint8_t* mins) {
  constexpr int kSub = Block::kSubItems, kSubs = Block::kItems / kSub;
  ScaleMin fits[kSubs];
  float max_scale = 0, max_min = 0;
  for (int s = 0; s < kSubs; ++s) {
    fits[s] = fit_scale_min<kSub>(in + kSub * s, fit);
    max_scale = std::max(max_scale, fits[s].scale);
    max_min = std::max(max_min, fits[s].min);
  }
  const float to_scale = max_scale > kNegligible ? fit.scale_top / max_scale : 0.0f;
  const float to_min = max_min > kNegligible ? fit.scale_top / max_min : 0.0f;
  for (int s = 0; s < kSubs; ++s) {
    scales[s] = uint8_t(round_clamped(to_scale * fits[s].scale, 0.0f, fit.scale_top));
    mins[s] = uint8_t(round_clamped(to_min * fits[s].min, 0.0f, fit.scale_top));
  }
  block.d = f32_to_f16(max_scale / fit.scale_top);
  block.dmin = f32_to_f16(max_min / fit.scale_top);
  choose_codes(in, fit.top, block, codes, scales, mins);
  if (refit(in, block, codes, scales, mins)) choose_codes(in, fit.top, block, codes, scales, mins);
}

// The weight of largest magnitude, with its sign.
template <int N>
float extreme_of(const float* x) {
  float extreme = 0;
  for (int i = 0; i < N; ++i)
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  return extreme;
}

template <class Block>
void choose_offset_codes(const float* in, const Block& block, uint8_t* codes, const int8_t* scales) {
  constexpr int kOffset = Block::kOffset;
  const float d = f16_to_f32(block.d);
  for (int e = 0; e < Block::kItems; ++e) {
    const float scale = d * float(scales[e / Block::kSubItems]);
    codes[e] = uint8_t(kOffset + (scale == 0 ? 0.0f : round_clamped(in[e] / scale, -kOffset, kOffset - 1)));
  }
}

// As above, for w ~ d * a.
template <class Block>
bool refit(const float* in, Block& block, const uint8_t* codes, const int8_t* scales) {
  double aa = 0, ax = 0;
  for (int e = 0; e < Block::kItems; ++e) {
    const double a = scales[e / Block::kSubItems] * (codes[e] - Block::kOffset);
    aa += a * a;
    ax += a * double(in[e]);
  }
  if (!(aa > 0)) return false;
  block.d = f32_to_f16(float(ax / aa));
  return true;
}

// The scale of a sub-block of 16 with codes `lowest` .. -lowest - 1 and weights w^2. The trial scales give
// the extreme weight the lowest code, or 0.1 * t more or less for t up to `trials`; with trials, also the
// highest.
float fit_scale(const float* in, float lowest, int trials) {
  const float extreme = extreme_of<16>(in);
  if (std::fabs(extreme) < kNegligible) return 0;
  const Values<16> x = Values<16>::load(in), weight = x * x, weighted_x = weight * x;
  float best_wqx = 0, best_wqq = 1;  // the fit removes wqx^2 / wqq of the squared error
  const auto consider = [&](float code_of_extreme) {
    const Values<16> codes = round_clamped(code_of_extreme / extreme * x, lowest, -lowest - 1);
    const float wqx = sum(weighted_x * codes), wqq = sum(weight * codes * codes);
    if (wqx * wqx * best_wqq > best_wqx * best_wqx * wqq) {
      best_wqx = wqx;
      best_wqq = wqq;
    }
  };
  for (int t = -trials; t <= trials; ++t) {
    consider(lowest - 0.1f * float(t));
    if (trials > 0) consider(-lowest - 1 + 0.1f * float(t));
  }
  return best_wqx / best_wqq;
}

// Sets d of `block` and writes its offset codes and the integer scales in [lowest, -lowest - 1] for the
// caller to pack.
template <class Block>
void quantize_without_min(const float* in, int trials, float lowest, Block& block, uint8_t* codes,
                          int8_t* scales) {
  constexpr int kSub = Block::kSubItems, kSubs = Block::kItems / kSub, kOffset = Block::kOffset;
  float fits[kSubs];
  for (int s = 0; s < kSubs; ++s) fits[s] = fit_scale(in + kSub * s, -kOffset, trials);
  const float largest = extreme_of<kSubs>(fits);
  const float to_scale = std::fabs(largest) > kNegligible ? lowest / largest : 0.0f;
  for (int s = 0; s < kSubs; ++s) scales[s] = int8_t(round_clamped(to_scale * fits[s], lowest, -lowest - 1));
  block.d = f32_to_f16(to_scale != 0 ? 1.0f / to_scale : 0.0f);
  choose_offset_codes(in, block, codes, scales);
  if (refit(in, block, codes, scales)) choose_offset_codes(in, block, codes, scales);
}

void pack_crumbs(const uint8_t* codes, uint8_t* qs) {
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; ++l) {
      const uint8_t* c = codes + 128 * h + l;
      qs[32 * h + l] = uint8_t((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
}

void pack_nibbles_k(const uint8_t* codes, uint8_t* qs) {
  for (int p = 0; p < 4; ++p)
    for (int l = 0; l < 32; ++l)
      qs[32 * p + l] = uint8_t((codes[64 * p + l] & 15) | (codes[64 * p + 32 + l] & 15) << 4);
}

// Bit `bit` of each code to byte e % 32, bit e / 32.
void pack_bit_plane(const uint8_t* codes, int bit, uint8_t* plane) {
  std::memset(plane, 0, 32);
  for (int e = 0; e < 256; ++e) plane[e % 32] |= uint8_t(((codes[e] >> bit) & 1) << e / 32);
}

void pack_scales_6bit(const uint8_t* scales, const uint8_t* mins, uint8_t* packed) {
  for (int i = 0; i < 4; ++i) {
    packed[i] = uint8_t(scales[i] | (scales[i + 4] >> 4) << 6);
    packed[i + 4] = uint8_t(mins[i] | (mins[i + 4] >> 4) << 6);
    packed[i + 8] = uint8_t((scales[i + 4] & 15) | (mins[i + 4] & 15) << 4);
  }
}

}  // namespace

void quantize(const float* in, BlockQ2_K& block) {
  uint8_t codes[256], scales[16], mins[16];
  quantize_with_min(in, kFitQ2_K, block, codes, scales, mins);
  for (int j = 0; j < 16; ++j) block.scales[j] = uint8_t(scales[j] | mins[j] << 4);
  pack_crumbs(codes, block.qs);
}

void quantize(const float* in, BlockQ3_K& block) {
  uint8_t codes[256];
  int8_t scales[16];
  quantize_without_min(in, 0, -32.0f, block, codes, scales);
  std::memset(block.scales, 0, sizeof(block.scales));
  for (int j = 0; j < 16; ++j) {
    const int scale = scales[j] + 32;
    block.scales[j % 8] |= uint8_t((scale & 15) << 4 * (j / 8));
    block.scales[8 + j % 4] |= uint8_t((scale >> 4) << 2 * (j / 4));
  }
  pack_crumbs(codes, block.qs);
  pack_bit_plane(codes, 2, block.hmask);
}

void quantize(const float* in, BlockQ4_K& block) {
  uint8_t codes[256], scales[8], mins[8];
  quantize_with_min(in, kFitQ4_K, block, codes, scales, mins);
  pack_scales_6bit(scales, mins, block.scales);
  pack_nibbles_k(codes, block.qs);
}

void quantize(const float* in, BlockQ5_K& block) {
  uint8_t codes[256], scales[8], mins[8];
  quantize_with_min(in, kFitQ5_K, block, codes, scales, mins);
  pack_scales_6bit(scales, mins, block.scales);
  pack_nibbles_k(codes, block.qs);
  pack_bit_plane(codes, 4, block.qh);
}

void quantize(const float* in, BlockQ6_K& block) {
  uint8_t codes[256];
  quantize_without_min(in, 9, -128.0f, block, codes, block.scales);
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; ++l) {
      const uint8_t* c = codes + 128 * h + l;
      block.ql[64 * h + l] = uint8_t((c[0] & 15) | (c[64] & 15) << 4);
      block.ql[64 * h + 32 + l] = uint8_t((c[32] & 15) | (c[96] & 15) << 4);
      block.qh[32 * h + l] = uint8_t(c[0] >> 4 | (c[32] >> 4) << 2 | (c[64] >> 4) << 4 | (c[96] >> 4) << 6);
    }
}

}  // namespace maestrale
