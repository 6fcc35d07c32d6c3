// SPDX-License-Identifier: Apache-2.0
// 16 virtual lanes on AVX2 + FMA + F16C: two ymm. With MAESTRALE_AVXVNNI the byte dot product is one
// instruction; without, it is composed so that no 16-bit lane saturates. See simd_scalar.h for what
// every operation means.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#ifdef MAESTRALE_AVXVNNI
#define MAESTRALE_SIMD_NAMESPACE simd_avxvnni
#else
#define MAESTRALE_SIMD_NAMESPACE simd_avx2
#endif

namespace maestrale::MAESTRALE_SIMD_NAMESPACE {

struct V {
  struct F {
    __m256 lo, hi;
  };
  // Of one vector type for the compiler, where __m256i and the arguments of instructions differ: it would
  // keep arrays of sums in memory otherwise.
  struct Ints {
    Ints() = default;
    Ints(__m256i x) : lanes((__v8si)x) {}
    operator __m256i() const { return (__m256i)lanes; }
    __v8si lanes;
  };
  struct I {
    Ints lo, hi;
  };
  struct Halves {  // the low and the high bytes of 16 x int16, in either half of a register
    __m256i low, high;
  };
  static constexpr int kTileRows = 4;
  static constexpr int kTilePanels = 1;
  static constexpr int kOnePanelRows = 4;
  static constexpr int kAttentionTiles = 1;

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F x) {
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps(p + 8, x.hi);
  }
  static void store_n(float* p, F x, int n) {
    float lanes[16];
    store(lanes, x);
    std::memcpy(p, lanes, sizeof(float) * size_t(n));
  }
  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F abs(F a) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
  }
  static F swap_pairs(F a) { return {_mm256_permute_ps(a.lo, 0xb1), _mm256_permute_ps(a.hi, 0xb1)}; }
  static F select_below(F x, int first, int last, F other) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto keep = [&](__m256i lanes) {
      return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lanes),
                                                     _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lanes)));
    };
    return {_mm256_blendv_ps(other.lo, x.lo, keep(lane)),
            _mm256_blendv_ps(other.hi, x.hi, keep(_mm256_add_epi32(lane, _mm256_set1_epi32(8))))};
  }
  static float reduce_add(F x) {
    const __m256 a = _mm256_add_ps(x.lo, x.hi);
    const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
  }
  static float reduce_max(F x) {
    const __m256 a = _mm256_max_ps(x.lo, x.hi);
    const __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 c = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
  }

  static F load_f16(const void* p) {
    const __m128i* q = (const __m128i*)p;
    return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
  }

  static I zero_i() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static I set1_i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I line(const void* p) {
    const __m256i* q = (const __m256i*)p;
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
  }
  static I load_s8(const void* p) {
    const __m128i x = _mm_loadu_si128((const __m128i*)p);
    return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))};
  }
  static I load_s8_halves(const void* p) {
    const __m128i* q = (const __m128i*)p;
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128(q)), _mm256_cvtepi8_epi16(_mm_loadu_si128(q + 1))};
  }
  static void store_s8(void* p, I x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i*)p, bytes);
  }
  static void store_s16(void* p, I x) {
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), 0xd8));
  }
  static I add_i(I a, I b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  static I sub_i(I a, I b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
  static I mul_i(I a, I b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
  static I and_i(I a, I b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
  static I or_i(I a, I b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  static I xor_i(I a, I b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
  template <int N>
  static I shl(I a) {
    return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
  }
  template <int N>
  static I shr(I a) {
    return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
  }
  static I shr(I a, int n) {
    const __m128i count = _mm_cvtsi32_si128(n);
    return {_mm256_srl_epi32(a.lo, count), _mm256_srl_epi32(a.hi, count)};
  }
  template <int N>
  static I sar(I a) {
    return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)};
  }
  template <int N>
  static I shr_halves(I a) {
    return {_mm256_srli_epi16(a.lo, N), _mm256_srli_epi16(a.hi, N)};
  }
  template <int N>
  static I sar_halves(I a) {
    return {_mm256_srai_epi16(a.lo, N), _mm256_srai_epi16(a.hi, N)};
  }
  static I sub_halves(I a, I b) { return {_mm256_sub_epi16(a.lo, b.lo), _mm256_sub_epi16(a.hi, b.hi)}; }
  static I swap_halves(I a) {
    const auto swap = [](__m256i x) { return _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(x, 0xb1), 0xb1); };
    return {swap(a.lo), swap(a.hi)};
  }
  static F as_float(I a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
  static F to_float(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  static I round(F a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
  static int32_t reduce_add_i(I a) {
    const __m256i b = _mm256_add_epi32(a.lo, a.hi);
    const __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    const __m128i d = _mm_add_epi32(c, _mm_unpackhi_epi64(c, c));
    return _mm_cvtsi128_si32(_mm_add_epi32(d, _mm_shuffle_epi32(d, 1)));
  }
  static I add_quads(I a, I b, I c, I d) {
    const auto add = [](I x, I y) {
      const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(x.lo, x.hi), _mm256_hadd_epi32(y.lo, y.hi));
      return _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    };
    return {add(a, b), add(c, d)};
  }

  static I broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return set1_i(x);
  }
  template <bool kWide>
  static I dot4(I acc, I u8, I s8) {
    return {dot4_half<kWide>(acc.lo, u8.lo, s8.lo), dot4_half<kWide>(acc.hi, u8.hi, s8.hi)};
  }
  static I dot2(I acc, I a, I b) {
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(a.lo, b.lo)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(a.hi, b.hi))};
  }
  static I lookup16(I table, I index) {
    return {_mm256_shuffle_epi8(table.lo, index.lo), _mm256_shuffle_epi8(table.hi, index.hi)};
  }
  static I table16(const uint8_t* p) {
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)p));
    return {t, t};
  }
  static Halves halves16(const int16_t* p) {
    const __m128i low = _mm_and_si128(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi16(0xff));
    const __m128i also_low = _mm_and_si128(_mm_loadu_si128((const __m128i*)p + 1), _mm_set1_epi16(0xff));
    const __m128i high = _mm_srli_epi16(_mm_loadu_si128((const __m128i*)p), 8);
    const __m128i also_high = _mm_srli_epi16(_mm_loadu_si128((const __m128i*)p + 1), 8);
    return {_mm256_broadcastsi128_si256(_mm_packus_epi16(low, also_low)),
            _mm256_broadcastsi128_si256(_mm_packus_epi16(high, also_high))};
  }
  static I lookup_halves(Halves table, I index) {
    return {lookup_half(table, index.lo), lookup_half(table, index.hi)};
  }
  static void prefetch(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*(const char*)p)); }
  static void prefetch_near(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*(const char*)p)); }

 private:
  // Bytes whose index has the top bit set become 0.
  static __m256i lookup_half(Halves table, __m256i index) {
    index = _mm256_and_si256(index, _mm256_set1_epi16(15));
    const __m256i even = _mm256_or_si256(index, _mm256_set1_epi16(int16_t(0x8000)));
    const __m256i odd = _mm256_or_si256(_mm256_slli_epi16(index, 8), _mm256_set1_epi16(0x80));
    return _mm256_or_si256(_mm256_shuffle_epi8(table.low, even), _mm256_shuffle_epi8(table.high, odd));
  }
  template <bool kWide>
  static __m256i dot4_half(__m256i acc, __m256i u8, __m256i s8) {
#ifdef MAESTRALE_AVXVNNI
    return _mm256_dpbusd_avx_epi32(acc, u8, s8);
#else
    if constexpr (kWide) {
      // Codes up to 255: even and odd bytes as 16-bit products, which madd adds up in 32 bits.
      const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u8, _mm256_set1_epi16(0xff)),
                                             _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
      const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
      return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
    } else {
      // Codes up to 127: |2 * 127 * 127| fits in int16, so maddubs never saturates.
      const __m256i pairs = _mm256_maddubs_epi16(u8, s8);
      return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
  }
};

}  // namespace maestrale::MAESTRALE_SIMD_NAMESPACE
