// SPDX-License-Identifier: Apache-2.0
// AVX-512 with dot products of bf16, which round and flush subnormal numbers in ways of their own: the one
// instruction set whose results are not those of simd_scalar.h.
#pragma once

#include "cpu/simd_avx512.h"

namespace maestrale::simd_avx512bf16 {

struct V : simd_avx512::V {
  // acc + a[2i] * b[2i] + a[2i + 1] * b[2i + 1] in lane i
  static F dot_bf16(F acc, I a, I b) { return _mm512_dpbf16_ps(acc, (__m512bh)a.lanes, (__m512bh)b.lanes); }
  // 16 bf16, rounded to nearest even
  static void store_bf16(void* p, F x) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(x)); }
};

}  // namespace maestrale::simd_avx512bf16
