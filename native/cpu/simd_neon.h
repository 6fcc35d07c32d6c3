// SPDX-License-Identifier: Apache-2.0
// 16 virtual lanes on AArch64 with the dot product instructions: four q registers. With
// MAESTRALE_NEON_I8MM a byte dot product of unsigned with signed is one instruction; without, codes up
// to 127 count as signed and wider ones are split. See simd_scalar.h for what every operation means.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#ifdef MAESTRALE_NEON_I8MM
#define MAESTRALE_SIMD_NAMESPACE simd_neoni8mm
#else
#define MAESTRALE_SIMD_NAMESPACE simd_neon
#endif

namespace maestrale::MAESTRALE_SIMD_NAMESPACE {

struct V {
  struct F {  // members, not an array: GCC keeps arrays of vectors in memory
    float32x4_t q0, q1, q2, q3;
  };
  struct I {
    int32x4_t q0, q1, q2, q3;
  };
  struct Halves {  // the low and the high bytes of 16 x int16
    uint8x16_t low, high;
  };
  // 16 sums, 4 codes and an activation fill 21 of the 32 registers.
  static constexpr int kTileRows = 4;
  static constexpr int kTilePanels = 1;
  static constexpr int kOnePanelRows = 4;
  static constexpr int kAttentionTiles = 1;

  static F zero() { return set1(0.0f); }
  static F set1(float x) {
    const float32x4_t q = vdupq_n_f32(x);
    return {q, q, q, q};
  }
  static F load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  static void store(float* p, F x) {
    vst1q_f32(p, x.q0);
    vst1q_f32(p + 4, x.q1);
    vst1q_f32(p + 8, x.q2);
    vst1q_f32(p + 12, x.q3);
  }
  static void store_n(float* p, F x, int n) {
    float lanes[16];
    store(lanes, x);
    std::memcpy(p, lanes, sizeof(float) * size_t(n));
  }
  static F add(F a, F b) { return map<vaddq_f32, F>(a, b); }
  static F sub(F a, F b) { return map<vsubq_f32, F>(a, b); }
  static F mul(F a, F b) { return map<vmulq_f32, F>(a, b); }
  static F div(F a, F b) { return map<vdivq_f32, F>(a, b); }
  static F fma(F a, F b, F c) { return map<vfmaq_f32, F>(c, a, b); }
  // fmin and fmax treat NaN and signed zeros otherwise than x86 does.
  static F min(F a, F b) { return map<min_quad, F>(a, b); }
  static F max(F a, F b) { return map<max_quad, F>(a, b); }
  static F abs(F a) { return map<vabsq_f32, F>(a); }
  static F swap_pairs(F a) { return map<vrev64q_f32, F>(a); }
  static F select_below(F x, int first, int last, F other) {
    static constexpr int32_t kLanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const int32x4_t from = vdupq_n_s32(first), to = vdupq_n_s32(last);
    const auto select = [&](int32x4_t lane, float32x4_t inside, float32x4_t outside) {
      return vbslq_f32(vandq_u32(vcgeq_s32(lane, from), vcltq_s32(lane, to)), inside, outside);
    };
    const I lane = line(kLanes);
    return {select(lane.q0, x.q0, other.q0), select(lane.q1, x.q1, other.q1), select(lane.q2, x.q2, other.q2),
            select(lane.q3, x.q3, other.q3)};
  }
  static float reduce_add(F x) {
    const float32x4_t quad = vaddq_f32(vaddq_f32(x.q0, x.q2), vaddq_f32(x.q1, x.q3));
    return vpadds_f32(vadd_f32(vget_low_f32(quad), vget_high_f32(quad)));
  }
  static float reduce_max(F x) {
    const float32x4_t quad = max_quad(max_quad(x.q0, x.q2), max_quad(x.q1, x.q3));
    const float32x4_t pair = max_quad(quad, vextq_f32(quad, quad, 2));
    const float a = vgetq_lane_f32(pair, 0), b = vgetq_lane_f32(pair, 1);
    return a > b ? a : b;
  }

  static F load_f16(const void* p) {
    const float16x8_t a = vreinterpretq_f16_u8(vld1q_u8((const uint8_t*)p));
    const float16x8_t b = vreinterpretq_f16_u8(vld1q_u8((const uint8_t*)p + 16));
    return {vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)),
            vcvt_high_f32_f16(b)};
  }

  static I zero_i() { return set1_i(0); }
  static I set1_i(int32_t x) {
    const int32x4_t q = vdupq_n_s32(x);
    return {q, q, q, q};
  }
  static I line(const void* p) {
    const auto quad = [p](int i) { return vreinterpretq_s32_u8(vld1q_u8((const uint8_t*)p + 16 * i)); };
    return {quad(0), quad(1), quad(2), quad(3)};
  }
  static I load_s8(const void* p) {
    const int8x16_t x = vld1q_s8((const int8_t*)p);
    const int16x8_t a = vmovl_s8(vget_low_s8(x)), b = vmovl_high_s8(x);
    return {vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)};
  }
  static I load_s8_halves(const void* p) {
    const int8x16_t low = vld1q_s8((const int8_t*)p), high = vld1q_s8((const int8_t*)p + 16);
    const auto widen = [](int8x8_t x) { return vreinterpretq_s32_s16(vmovl_s8(x)); };
    return {widen(vget_low_s8(low)), widen(vget_high_s8(low)), widen(vget_low_s8(high)),
            widen(vget_high_s8(high))};
  }
  static void store_s8(void* p, I x) {
    const int16x8_t a = vmovn_high_s32(vmovn_s32(x.q0), x.q1), b = vmovn_high_s32(vmovn_s32(x.q2), x.q3);
    vst1q_s8((int8_t*)p, vmovn_high_s16(vmovn_s16(a), b));
  }
  static void store_s16(void* p, I x) {
    vst1q_s16((int16_t*)p, vmovn_high_s32(vmovn_s32(x.q0), x.q1));
    vst1q_s16((int16_t*)p + 8, vmovn_high_s32(vmovn_s32(x.q2), x.q3));
  }
  static I add_i(I a, I b) { return map<vaddq_s32, I>(a, b); }
  static I sub_i(I a, I b) { return map<vsubq_s32, I>(a, b); }
  static I mul_i(I a, I b) { return map<vmulq_s32, I>(a, b); }
  static I and_i(I a, I b) { return map<vandq_s32, I>(a, b); }
  static I or_i(I a, I b) { return map<vorrq_s32, I>(a, b); }
  static I xor_i(I a, I b) { return map<veorq_s32, I>(a, b); }
  template <int N>
  static I shl(I a) {
    return map<shl_quad<N>, I>(a);
  }
  template <int N>
  static I shr(I a) {
    return map<shr_quad<N>, I>(a);
  }
  static I shr(I a, int n) {
    const int32x4_t left = vdupq_n_s32(-n);
    const auto shift = [&](int32x4_t x) {
      return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), left));
    };
    return {shift(a.q0), shift(a.q1), shift(a.q2), shift(a.q3)};
  }
  template <int N>
  static I sar(I a) {
    return map<sar_quad<N>, I>(a);
  }
  template <int N>
  static I shr_halves(I a) {
    return map<shr_halves_quad<N>, I>(a);
  }
  template <int N>
  static I sar_halves(I a) {
    return map<sar_halves_quad<N>, I>(a);
  }
  static I sub_halves(I a, I b) { return map<sub_halves_quad, I>(a, b); }
  static I swap_halves(I a) { return map<swap_halves_quad, I>(a); }
  static F as_float(I a) { return map<vreinterpretq_f32_s32, F>(a); }
  static F to_float(I a) { return map<vcvtq_f32_s32, F>(a); }
  // The conversion gives 0 for NaN and saturates; only its lower end is what is wanted.
  static I round(F a) { return map<round_quad, I>(a); }
  static int32_t reduce_add_i(I a) {
    return vaddvq_s32(vaddq_s32(vaddq_s32(a.q0, a.q1), vaddq_s32(a.q2, a.q3)));
  }
  static I add_quads(I a, I b, I c, I d) {
    const auto add = [](I x) { return vpaddq_s32(vpaddq_s32(x.q0, x.q1), vpaddq_s32(x.q2, x.q3)); };
    return {add(a), add(b), add(c), add(d)};
  }

  static I broadcast4(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return set1_i(x);
  }
  template <bool kWide>
  static I dot4(I acc, I u8, I s8) {
    return map<dot4_quad<kWide>, I>(acc, u8, s8);
  }
  static I dot2(I acc, I a, I b) { return map<dot2_quad, I>(acc, a, b); }
  static I lookup16(I table, I index) { return map<lookup_quad, I>(table, index); }
  static I table16(const uint8_t* p) {
    const int32x4_t t = vreinterpretq_s32_u8(vld1q_u8(p));
    return {t, t, t, t};
  }
  static Halves halves16(const int16_t* p) {
    const uint8x16x2_t bytes = vld2q_u8((const uint8_t*)p);
    return {bytes.val[0], bytes.val[1]};
  }
  static I lookup_halves(Halves table, I index) {
    return {lookup_halves_quad(table, index.q0), lookup_halves_quad(table, index.q1),
            lookup_halves_quad(table, index.q2), lookup_halves_quad(table, index.q3)};
  }
  static void prefetch(const void* p) { asm volatile("prfm pldl2keep, %0" : : "Q"(*(const char*)p)); }
  static void prefetch_near(const void* p) { asm volatile("prfm pldl1keep, %0" : : "Q"(*(const char*)p)); }

 private:
  // fn on each of the four registers of its arguments; a template argument, so that it is always inlined.
  template <auto fn, class R, class... A>
  [[gnu::always_inline]] static R map(A... a) {
    return {fn(a.q0...), fn(a.q1...), fn(a.q2...), fn(a.q3...)};
  }
  static float32x4_t min_quad(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static float32x4_t max_quad(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

  template <int N>
  static int32x4_t shl_quad(int32x4_t x) {
    return vshlq_n_s32(x, N);
  }
  template <int N>
  static int32x4_t shr_quad(int32x4_t x) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x), N));
  }
  template <int N>
  static int32x4_t sar_quad(int32x4_t x) {
    return vshrq_n_s32(x, N);
  }
  template <int N>
  static int32x4_t shr_halves_quad(int32x4_t x) {
    return vreinterpretq_s32_u16(vshrq_n_u16(vreinterpretq_u16_s32(x), N));
  }
  template <int N>
  static int32x4_t sar_halves_quad(int32x4_t x) {
    return vreinterpretq_s32_s16(vshrq_n_s16(vreinterpretq_s16_s32(x), N));
  }
  static int32x4_t sub_halves_quad(int32x4_t a, int32x4_t b) {
    return vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)));
  }
  static int32x4_t swap_halves_quad(int32x4_t x) {
    return vreinterpretq_s32_s16(vrev32q_s16(vreinterpretq_s16_s32(x)));
  }
  static int32x4_t round_quad(float32x4_t x) {
    const uint32x4_t fits = vcltq_f32(x, vdupq_n_f32(0x1p31f));
    return vbslq_s32(fits, vcvtnq_s32_f32(x), vdupq_n_s32(INT32_MIN));
  }
  static int32x4_t lookup_quad(int32x4_t table, int32x4_t index) {
    return vreinterpretq_s32_u8(vqtbl1q_u8(vreinterpretq_u8_s32(table), vreinterpretq_u8_s32(index)));
  }
  // Bytes whose index is beyond the table become 0.
  static int32x4_t lookup_halves_quad(Halves table, int32x4_t index) {
    const uint16x8_t codes = vandq_u16(vreinterpretq_u16_s32(index), vdupq_n_u16(15));
    const uint8x16_t even = vreinterpretq_u8_u16(vorrq_u16(codes, vdupq_n_u16(0xff00)));
    const uint8x16_t odd = vreinterpretq_u8_u16(vorrq_u16(vshlq_n_u16(codes, 8), vdupq_n_u16(0xff)));
    return vreinterpretq_s32_u8(vorrq_u8(vqtbl1q_u8(table.low, even), vqtbl1q_u8(table.high, odd)));
  }
  static int32x4_t dot2_quad(int32x4_t acc, int32x4_t a, int32x4_t b) {
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    const int32x4_t lower = vmull_s16(vget_low_s16(x), vget_low_s16(y));
    return vaddq_s32(acc, vpaddq_s32(lower, vmull_high_s16(x, y)));
  }
  template <bool kWide>
  static int32x4_t dot4_quad(int32x4_t acc, int32x4_t u8, int32x4_t s8) {
    const int8x16_t q = vreinterpretq_s8_s32(s8);
#ifdef MAESTRALE_NEON_I8MM
    return vusdotq_s32(acc, vreinterpretq_u8_s32(u8), q);
#else
    if constexpr (kWide) {
      // u * q = (u - 128) * q + 128 * q; the second sum is the same for all panels of an activation.
      const int8x16_t minus128 = vdupq_n_s8(-128);
      const int32x4_t shift = vdotq_s32(vdupq_n_s32(0), minus128, q);
      return vdotq_s32(vsubq_s32(acc, shift), veorq_s8(vreinterpretq_s8_s32(u8), minus128), q);
    } else {
      return vdotq_s32(acc, vreinterpretq_s8_s32(u8), q);
    }
#endif
  }
};

}  // namespace maestrale::MAESTRALE_SIMD_NAMESPACE
