// SPDX-License-Identifier: Apache-2.0
// The elementwise and row kernels, written once over V (simd_scalar.h). Sums run over 16 lanes, lane i
// taking elements i + 16 t in ascending order, and end in a fixed tree; every rounding is written out.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "cpu/panel_layout.h"

namespace maestrale {

// 2^x. Relative error below 2^-22; 0 for x < -126.5, infinity for x > 127.5; NaN stays NaN.
template <class V>
typename V::F exp2(typename V::F x) {
  // The operand order keeps NaN: min and max return their second operand for it.
  x = V::max(V::set1(-127.0f), V::min(V::set1(128.0f), x));
  const auto n = V::round(x);
  const auto r = V::sub(x, V::to_float(n));
  auto p = V::set1(1.5252733804059841e-05f);  // ln(2)^k / k!, k = 7 .. 0
  p = V::fma(p, r, V::set1(1.5403530393381609e-04f));
  p = V::fma(p, r, V::set1(1.3333558146428443e-03f));
  p = V::fma(p, r, V::set1(9.6181291076284772e-03f));
  p = V::fma(p, r, V::set1(5.5504108664821580e-02f));
  p = V::fma(p, r, V::set1(2.4022650695910072e-01f));
  p = V::fma(p, r, V::set1(6.9314718055994531e-01f));
  p = V::fma(p, r, V::set1(1.0f));
  // n = -127 gives the bits of 0, so everything too small underflows to zero.
  return V::mul(p, V::as_float(V::template shl<23>(V::add_i(n, V::set1_i(127)))));
}

// Largest |x| of n values in every lane's share, and a sum that is NaN iff some x is not finite.
template <class V>
float absolute_maximum(const float* x, int64_t n, float& poison) {
  typename V::F largest[] = {V::zero(), V::zero()}, check[] = {V::zero(), V::zero()};  // chains of their own
  for (int64_t i = 0; i < n; i += 16) {
    const auto value = V::load(x + i);
    const auto t = i / 16 % 2;
    largest[t] = V::max(largest[t], V::abs(value));
    check[t] = V::fma(value, V::zero(), check[t]);
  }
  poison = V::reduce_add(V::add(check[0], check[1]));
  return V::reduce_max(V::max(largest[0], largest[1]));
}

// q = nearest(x * factor) for n values.
template <class V>
void round_i8(const float* x, int64_t n, float factor, int8_t* q) {
  const auto f = V::set1(factor);
  for (int64_t i = 0; i < n; i += 16) V::store_s8(q + i, V::round(V::mul(V::load(x + i), f)));
}

// 127 / largest, or 0 where that would overflow: such rows are zero for every purpose.
inline constexpr float kSmallestMaximum = 0x1p-110f;
template <class V>
float i8_factor(float largest) {
  return largest > kSmallestMaximum ? 127.0f / largest : 0.0f;
}

// q = nearest(x * 127 / max|x|) for n values, returns max|x| / 127 (NaN when an x is not finite).
template <class V>
float quantize_i8(const float* x, int64_t n, int8_t* q) {
  float poison;
  const float largest = absolute_maximum<V>(x, n, poison);
  round_i8<V>(x, n, i8_factor<V>(largest), q);
  return largest / 127.0f + poison;
}

// Sums of a quantised block; returns by how much its values must shrink to keep the bounds of Activation256.
template <class V>
float sum_up(Activation256& block) {
  typename V::I sums[4], absolutes[4];  // of 4 neighbours
  for (int i = 0; i < 4; ++i) {
    const auto ones = V::set1_i(0x01010101);
    const auto q = V::line(block.q + 64 * i);
    const auto negative = V::and_i(V::template shr<7>(q), ones);
    const auto flip = V::mul_i(negative, V::set1_i(0xff));
    sums[i] = V::template dot4<false>(V::zero_i(), ones, q);
    absolutes[i] = V::template dot4<false>(V::zero_i(), V::add_i(V::xor_i(q, flip), negative), ones);
  }
  const auto absolute = V::add_quads(absolutes[0], absolutes[1], absolutes[2], absolutes[3]);
  int16_t absolute16[16];
  V::store_s16(block.sum16, V::add_quads(sums[0], sums[1], sums[2], sums[3]));
  V::store_s16(absolute16, absolute);

  // Rounding moves a sum of 16 by at most 8, so aim that much below the bound.
  const float largest = V::reduce_max(V::to_float(absolute));
  float excess = largest > kMaxAbsSum16 ? largest / float(kMaxAbsSum16 - 8) : 1.0f;
  int largest_one_sign = 0;
  for (int s = 0; s < 8; ++s) {
    const int first = block.sum16[2 * s], second = block.sum16[2 * s + 1], sum = first + second;
    block.start16[2 * s] = uint16_t(0x8000 - 32 * second);
    block.start16[2 * s + 1] = uint16_t(0x8000 - 32 * first);
    block.sum32[s] = int16_t(sum);
    block.start32[s] = -128 * sum;
    const int one_sign = (absolute16[2 * s] + absolute16[2 * s + 1] + (sum < 0 ? -sum : sum)) / 2;
    largest_one_sign = one_sign > largest_one_sign ? one_sign : largest_one_sign;
  }
  const float ratio = float(largest_one_sign) / float(kMaxSum32 - 16);
  return largest_one_sign > kMaxSum32 && ratio > excess ? ratio : excess;
}

// Several blocks at a time, each step for all of them: within a block every step waits for the one before.
template <class V>
void quantize_q256(const float* x, int64_t cols, std::byte* out) {
  constexpr int64_t kAtOnce = 8;
  const int64_t n_blocks = cols / 256;
  for (int64_t first = 0; first < n_blocks; first += kAtOnce) {
    const int64_t n = n_blocks - first < kAtOnce ? n_blocks - first : kAtOnce;
    const float* values = x + 256 * first;
    auto* blocks = reinterpret_cast<Activation256*>(out) + first;
    float largest[kAtOnce], poison[kAtOnce];
    for (int64_t i = 0; i < n; ++i) largest[i] = absolute_maximum<V>(values + 256 * i, 256, poison[i]);
    for (int64_t i = 0; i < n; ++i) round_i8<V>(values + 256 * i, 256, i8_factor<V>(largest[i]), blocks[i].q);
    for (int64_t i = 0; i < n; ++i) {
      const float excess = sum_up<V>(blocks[i]);
      if (excess > 1.0f) {  // nearly constant values: a coarser step, still fine relative to their size
        largest[i] *= excess;
        round_i8<V>(values + 256 * i, 256, i8_factor<V>(largest[i]), blocks[i].q);
        sum_up<V>(blocks[i]);
      }
      blocks[i].d = largest[i] / 127.0f + poison[i];
    }
  }
}

template <class V>
void quantize_q64(const float* x, int64_t cols, std::byte* out) {
  auto* pair = reinterpret_cast<Activation64*>(out);
  for (int64_t i = 0; i < cols; i += 64, ++pair)
    for (int b = 0; b < 2; ++b) {
      int8_t* q = pair->q + 32 * b;
      if (i + 32 * b < cols) {
        pair->d[b] = quantize_i8<V>(x + i + 32 * b, 32, q);
        pair->sum[b] = V::reduce_add_i(V::add_i(V::load_s8(q), V::load_s8(q + 16)));
      } else {
        for (int e = 0; e < 32; ++e) q[e] = 0;
        pair->d[b] = 0.0f;
        pair->sum[b] = 0;
      }
    }
}

// q = nearest(x / step) for n values, which then must be within int16; 0 where 1 / step would overflow.
inline constexpr float kSmallestStep = 0x1p-126f;
template <class V>
void round_i16(const float* x, int64_t n, float step, int16_t* q) {
  const auto factor = V::set1(step > kSmallestStep ? 1.0f / step : 0.0f);
  for (int64_t i = 0; i < n; i += 16) V::store_s16(q + i, V::round(V::mul(V::load(x + i), factor)));
}

// The same in 16 bits: q = nearest(x * limit / max|x|), returns max|x| / limit.
template <class V>
float quantize_i16(const float* x, int64_t n, float limit, int16_t* q) {
  float poison;
  const float largest = absolute_maximum<V>(x, n, poison);
  const float step = largest / limit;
  round_i16<V>(x, n, step, q);
  return step + poison;
}

template <class V>
void quantize_q128(const float* x, int64_t cols, std::byte* out) {
  auto* pair = reinterpret_cast<Activation128*>(out);
  for (int64_t i = 0; i < cols; i += 128, ++pair)
    for (int b = 0; b < 2; ++b) {
      int16_t* q = pair->q + 64 * b;
      if (i + 64 * b < cols) {
        pair->d[b] = quantize_i16<V>(x + i + 64 * b, 64, float(kMaxQ16), q);
      } else {
        for (int e = 0; e < 64; ++e) q[e] = 0;
        pair->d[b] = 0.0f;
      }
    }
}

template <class V>
void rms_norm(const float* x, const float* weight, float eps, int64_t cols, float* out) {
  auto squares = V::zero();
  for (int64_t i = 0; i < cols; i += 16) {
    const auto value = V::load(x + i);
    squares = V::fma(value, value, squares);
  }
  const float mean = V::reduce_add(squares) / float(cols);
  const auto factor = V::set1(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < cols; i += 16)
    V::store(out + i, V::mul(V::mul(V::load(x + i), factor), V::load(weight + i)));
}

// silu(z) = z / (1 + e^-z)
template <class V>
void swiglu(const float* gate, const float* up, int64_t n, float* out) {
  const auto minus_log2e = V::set1(-1.44269504088896341f);
  for (int64_t i = 0; i < n; i += 16) {
    const auto z = V::load(gate + i);
    const auto silu = V::div(z, V::add(V::set1(1.0f), exp2<V>(V::mul(z, minus_log2e))));
    V::store(out + i, V::mul(silu, V::load(up + i)));
  }
}

template <class V>
void rope(float* x, const float* cos, const float* sin, int32_t head_dim) {
  for (int32_t i = 0; i < head_dim; i += 16) {
    const auto value = V::load(x + i);
    const auto crossed = V::mul(V::swap_pairs(value), V::load(sin + i));
    V::store(x + i, V::fma(value, V::load(cos + i), crossed));
  }
}

template <class V>
void scale(const float* x, float factor, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) V::store(out + i, V::mul(V::load(x + i), V::set1(factor)));
}

// A value of the cache. A bit less than there are leaves one more to the weights that multiply it.
inline constexpr int kMaxValue16 = 16383;
template <class V>
float quantize_value(const float* x, int64_t n, int16_t* q) {
  return quantize_i16<V>(x, n, float(kMaxValue16), q);
}

// A vector for dot products: q as large as 16 bits and a norm of kMaxNorm16 allow, so that the products of
// two such vectors sum up to less than 2^31 in any order. Rounding adds at most 8 to the norm of 256
// elements.
inline constexpr float kMaxNorm16 = 46000.0f;
template <class V>
float quantize_vector(const float* x, int64_t n, int16_t* q) {
  float poison;
  const float largest = absolute_maximum<V>(x, n, poison);
  if (!(largest > kSmallestMaximum)) {
    round_i16<V>(x, n, 0.0f, q);
    return 1.0f + poison;
  }
  const auto factor = V::set1(1.0f / largest);
  auto squares = V::zero();
  for (int64_t i = 0; i < n; i += 16) {
    const auto value = V::mul(V::load(x + i), factor);
    squares = V::fma(value, value, squares);
  }
  const float by_norm = __builtin_sqrtf(V::reduce_add(squares)) / kMaxNorm16;
  const float by_largest = 1.0f / float(INT16_MAX);
  const float step = largest * (by_norm > by_largest ? by_norm : by_largest);
  round_i16<V>(x, n, step, q);
  return step + poison;
}

}  // namespace maestrale
