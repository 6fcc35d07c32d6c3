// SPDX-License-Identifier: Apache-2.0
// 16 virtual lanes on AVX-512 with VNNI: one zmm each for floats and integers. See simd_scalar.h for
// what every operation means; this file only says how.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace maestrale::simd_avx512 {

struct V {
  using F = __m512;                    // 16 x float
  struct I;                            // 16 x int32, or 64 bytes
  using Halves = __m512i;              // 16 x int16, twice: the lookup takes 5 bits of an index
  static constexpr int kTileRows = 6;  // of two panels: 24 sums in registers, none on the stack
  static constexpr int kTilePanels = 2;
  static constexpr int kOnePanelRows = 8;
  static constexpr int kAttentionTiles = 4;

  // Of one vector type for the compiler, where __m512i and the arguments of instructions differ: it would
  // keep arrays of sums in memory otherwise.
  struct I {
    I() = default;
    I(__m512i x) : lanes((__v16si)x) {}
    operator __m512i() const { return (__m512i)lanes; }
    __v16si lanes;
  };

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store_n(float* p, F x, int n) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F abs(F a) { return _mm512_abs_ps(a); }
  static F swap_pairs(F a) { return _mm512_permute_ps(a, 0xb1); }
  static F select_below(F x, int first, int last, F other) {
    const __mmask16 mask = __mmask16(((1u << last) - 1) & ~((1u << first) - 1));
    return _mm512_mask_blend_ps(mask, other, x);
  }
  static float reduce_add(F x) {
    const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), upper(x));
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  static float reduce_max(F x) {
    const __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x), upper(x));
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
  }

  static F load_f16(const void* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }

  static I zero_i() { return _mm512_setzero_si512(); }
  static I set1_i(int32_t x) { return _mm512_set1_epi32(x); }
  static I line(const void* p) { return _mm512_loadu_si512(p); }
  static I load_s8(const void* p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)); }
  static I load_s8_halves(const void* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p));
  }
  static void store_s8(void* p, I x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x)); }
  static void store_s16(void* p, I x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(x)); }
  static I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub_i(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I mul_i(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I and_i(I a, I b) { return _mm512_and_si512(a, b); }
  static I or_i(I a, I b) { return _mm512_or_si512(a, b); }
  static I xor_i(I a, I b) { return _mm512_xor_si512(a, b); }
  template <int N>
  static I shl(I a) {
    return _mm512_slli_epi32(a, N);
  }
  template <int N>
  static I shr(I a) {
    return _mm512_srli_epi32(a, N);
  }
  static I shr(I a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
  template <int N>
  static I sar(I a) {
    return _mm512_srai_epi32(a, N);
  }
  template <int N>
  static I shr_halves(I a) {
    return _mm512_srli_epi16(a, N);
  }
  template <int N>
  static I sar_halves(I a) {
    return _mm512_srai_epi16(a, N);
  }
  static I sub_halves(I a, I b) { return _mm512_sub_epi16(a, b); }
  static I swap_halves(I a) { return _mm512_rol_epi32(a, 16); }
  static F as_float(I a) { return _mm512_castsi512_ps(a); }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I round(F a) { return _mm512_cvtps_epi32(a); }
  static int32_t reduce_add_i(I a) { return _mm512_reduce_add_epi32(a); }
  static I add_quads(I a, I b, I c, I d) {
    const auto add_halves = [](I x, I y) {  // of each quad of x and y, in turns
      return _mm512_add_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
    };
    const I ab = add_halves(a, b), cd = add_halves(c, d);
    const I sums = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                    sums);
  }

  static I broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return _mm512_set1_epi32(x);
  }
  template <bool kWide>
  static I dot4(I acc, I u8, I s8) {
    return _mm512_dpbusd_epi32(acc, u8, s8);
  }
  static I dot2(I acc, I a, I b) { return _mm512_dpwssd_epi32(acc, a, b); }
  static I lookup16(I table, I index) { return _mm512_shuffle_epi8(table, index); }
  static I table16(const uint8_t* p) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)p)); }
  static Halves halves16(const int16_t* p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)p));
  }
  static I lookup_halves(Halves table, I index) { return _mm512_permutexvar_epi16(index, table); }
  // Makes the compiler hold x in a register.
  static void keep(I& x) { asm("" : "+v"(x.lanes)); }
  static void keep(F& x) { asm("" : "+v"(x)); }
  static void prefetch(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*(const char*)p)); }
  static void prefetch_near(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*(const char*)p)); }

 private:
  static __m256 upper(F x) { return _mm512_extractf32x8_ps(x, 1); }
};

}  // namespace maestrale::simd_avx512
