// SPDX-License-Identifier: Apache-2.0
// binary16 and bfloat16 conversions against their definitions, evaluated slowly in binary64.
#include "base/half.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "check.h"
#include "quant/finite.h"

using namespace maestrale;

namespace {

double f16_by_definition(uint32_t bits) {
  const int exponent = int(bits >> 10) & 31, mantissa = int(bits & 1023);
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// The nearest binary16 to a finite `value` by search over all of them; ties to the even mantissa.
uint16_t nearest_f16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(double(value));
  if (magnitude >= 65520) return uint16_t(sign | 0x7c00);  // half a step above 65504 rounds up, to infinity
  uint16_t low = 0, high = 0x7bff;                         // magnitudes ascend with their bits
  while (high - low > 1) {
    const uint16_t middle = uint16_t((low + high) / 2);
    (f16_by_definition(middle) <= magnitude ? low : high) = middle;
  }
  const double below = magnitude - f16_by_definition(low), above = f16_by_definition(high) - magnitude;
  if (below == above) return uint16_t(sign | (low % 2 == 0 ? low : high));
  return uint16_t(sign | (below < above ? low : high));
}

}  // namespace

TEST("half: every binary16 decodes to its value and comes back") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float actual = f16_to_f32(uint16_t(bits));
    const double expected = f16_by_definition(bits);
    if (std::isnan(expected)) {
      CHECK(std::isnan(actual));
      CHECK_EQ(f32_to_f16(actual), uint16_t(bits | 0x200));
      continue;
    }
    CHECK_EQ(double(actual), expected);
    CHECK_EQ(std::signbit(actual), (bits & 0x8000) != 0);
    CHECK_EQ(f32_to_f16(actual), uint16_t(bits));
  }
}

TEST("half: every bfloat16 decodes to its value and comes back") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float actual = bf16_to_f32(uint16_t(bits));
    const int exponent = int(bits >> 7) & 255, mantissa = int(bits & 127);
    if (exponent == 255 && mantissa != 0) {
      CHECK(std::isnan(actual));
      CHECK_EQ(f32_to_bf16(actual), uint16_t(bits | 0x40));
      continue;
    }
    const double magnitude = exponent == 255 ? HUGE_VAL
                             : exponent == 0 ? std::ldexp(mantissa, -133)
                                             : std::ldexp(128 + mantissa, exponent - 134);
    CHECK_EQ(double(actual), bits & 0x8000 ? -magnitude : magnitude);
    CHECK_EQ(f32_to_bf16(actual), uint16_t(bits));
  }
}

TEST("half: binary32 rounds to the nearest binary16, ties to even") {
  // Around every binary16: the midpoint to its successor and the binary32 values next to the midpoint.
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const double next = bits == 0x7bff ? 65536.0 : f16_by_definition(bits + 1);
    const float middle = float((f16_by_definition(bits) + next) / 2);
    for (float value : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, HUGE_VALF)}) {
      CHECK_EQ(f32_to_f16(value), nearest_f16(value));
      CHECK_EQ(f32_to_f16(-value), nearest_f16(-value));
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100000; ++i) {
    const float value = std::bit_cast<float>(uint32_t(random()));
    if (std::isfinite(value)) CHECK_EQ(f32_to_f16(value), nearest_f16(value));
  }
}

TEST("half: overflow, infinity, NaN and the smallest values") {
  CHECK_EQ(f32_to_f16(65519.996f), 0x7bff);
  CHECK_EQ(f32_to_f16(65520.0f), 0x7c00);
  CHECK_EQ(f32_to_f16(-HUGE_VALF), 0xfc00);
  CHECK_EQ(f32_to_f16(0x1p-25f), 0);  // half of the smallest denormal: a tie, to zero
  CHECK_EQ(f32_to_f16(std::nextafter(0x1p-25f, 1.0f)), 1);
  CHECK_EQ(f32_to_f16(-0.0f), 0x8000);
  CHECK(std::isnan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7f800001u)))));
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // the largest binary32 overflows
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, down to even
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, up to even
  CHECK_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7f800001u)))));
}

TEST("half: of every pattern all_finite() says what the value is") {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    std::byte row[6] = {};
    std::memcpy(row + bits % 3 * 2, &bits, 2);
    CHECK(all_finite(QuantType::kF16, row, 3) == bool(std::isfinite(f16_to_f32(uint16_t(bits)))));
    CHECK(all_finite(QuantType::kBF16, row, 3) == bool(std::isfinite(bf16_to_f32(uint16_t(bits)))));
    const float single = bf16_to_f32(uint16_t(bits));
    std::memcpy(row, &single, 4);
    CHECK(all_finite(QuantType::kF32, row, 1) == bool(std::isfinite(single)));
  }
}
