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
  auto largest = V::zero(), check = V::zero();
  for (int64_t i = 0; i < n; i += 16) {
    const auto value = V::load(x + i);
    largest = V::max(largest, V::abs(value));
    check = V::fma(value, V::zero(), check);
  }
  poison = V::reduce_add(check);
  return V::reduce_max(largest);
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
  int absolute[16];
  float excess = 1.0f;
  for (int s = 0; s < 16; ++s) {
    const auto q = V::load_s8(block.q + 16 * s);
    const int sum = V::reduce_add_i(q);
    block.sum16[s] = int16_t(sum);
    block.start16[s ^ 1] = uint16_t(0x8000 - 32 * sum);
    absolute[s] = V::reduce_add_i(V::abs_i(q));
    // Rounding moves a sum of 16 by at most 8, so aim that much below the bound.
    const float ratio = float(absolute[s]) / float(kMaxAbsSum16 - 8);
    if (absolute[s] > kMaxAbsSum16 && ratio > excess) excess = ratio;
  }
  for (int s = 0; s < 8; ++s) {
    const int sum = block.sum16[2 * s] + block.sum16[2 * s + 1];
    block.sum32[s] = int16_t(sum);
    block.start32[s] = -128 * sum;
    const int one_sign = (absolute[2 * s] + absolute[2 * s + 1] + (sum < 0 ? -sum : sum)) / 2;
    const float ratio = float(one_sign) / float(kMaxSum32 - 16);
    if (one_sign > kMaxSum32 && ratio > excess) excess = ratio;
  }
  return excess;
}

template <class V>
void quantize_q256(const float* x, int64_t cols, std::byte* out) {
  auto* block = reinterpret_cast<Activation256*>(out);
  for (int64_t i = 0; i < cols; i += 256, ++block) {
    float poison;
    float largest = absolute_maximum<V>(x + i, 256, poison);
    round_i8<V>(x + i, 256, i8_factor<V>(largest), block->q);
    const float excess = sum_up<V>(*block);
    if (excess > 1.0f) {  // nearly constant values: a coarser step, still fine relative to their size
      largest *= excess;
      round_i8<V>(x + i, 256, i8_factor<V>(largest), block->q);
      sum_up<V>(*block);
    }
    block->d = largest / 127.0f + poison;
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

// The same in 16 bits: q = nearest(x * kMaxQ16 / max|x|).
template <class V>
float quantize_i16(const float* x, int64_t n, int16_t* q) {
  float poison;
  const float largest = absolute_maximum<V>(x, n, poison);
  const auto factor = V::set1(largest > kSmallestMaximum ? float(kMaxQ16) / largest : 0.0f);
  for (int64_t i = 0; i < n; i += 16) V::store_s16(q + i, V::round(V::mul(V::load(x + i), factor)));
  return largest / float(kMaxQ16) + poison;
}

template <class V>
void quantize_q128(const float* x, int64_t cols, std::byte* out) {
  auto* pair = reinterpret_cast<Activation128*>(out);
  for (int64_t i = 0; i < cols; i += 128, ++pair)
    for (int b = 0; b < 2; ++b) {
      int16_t* q = pair->q + 64 * b;
      if (i + 64 * b < cols) {
        pair->d[b] = quantize_i16<V>(x + i + 64 * b, 64, q);
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

template <class V>
void to_f16(const float* x, int64_t n, uint16_t* out) {
  const auto largest = V::set1(65504.0f), smallest = V::set1(-65504.0f);
  for (int64_t i = 0; i < n; i += 16)
    V::store_f16(out + i, V::max(smallest, V::min(largest, V::load(x + i))));
}

}  // namespace maestrale
