// SPDX-License-Identifier: Apache-2.0
// 16 virtual lanes in plain C++: the executable specification of the kernels. The kernel templates
// (gemm_tile.h, attention_tile.h, vector_ops.h) are written once over a class V; every instruction
// set supplies its own V, and since each operation below is exact or rounds once (IEEE binary32,
// nearest even), all of them give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace maestrale::simd_scalar {

struct V {
  struct F {  // 16 floats
    float v[16];
  };
  struct I {  // 16 int32, little endian, also seen as 64 bytes
    int32_t v[16];
  };
  struct Halves {  // 16 signed 16-bit integers
    int16_t v[16];
  };
  // Shape of the matmul tile: panels of 16 weight rows times activation rows.
  static constexpr int kTileRows = 2;
  static constexpr int kTilePanels = 1;
  static constexpr int kOnePanelRows = 2;  // of a tile of one panel, which few rows take: see gemm_near()
  // Tiles of 16 positions or columns that attention multiplies at once with its block of queries.
  static constexpr int kAttentionTiles = 1;

  static F zero() { return set1(0.0f); }
  static F set1(float x) {
    return map([&](int) { return x; });
  }
  static F load(const float* p) {
    return map([&](int i) { return p[i]; });
  }
  static void store(float* p, F x) { std::memcpy(p, x.v, sizeof x.v); }
  // The first n lanes only.
  static void store_n(float* p, F x, int n) { std::memcpy(p, x.v, sizeof(float) * size_t(n)); }
  static F add(F a, F b) {
    return map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F sub(F a, F b) {
    return map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F mul(F a, F b) {
    return map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F div(F a, F b) {
    return map([&](int i) { return a.v[i] / b.v[i]; });
  }
  // a * b + c, rounded once.
  static F fma(F a, F b, F c) {
    return map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  // As x86 does: the second operand when either is NaN.
  static F min(F a, F b) {
    return map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F max(F a, F b) {
    return map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F abs(F a) {
    return map([&](int i) { return std::fabs(a.v[i]); });
  }
  // Lanes 2m and 2m + 1 change places.
  static F swap_pairs(F a) {
    return map([&](int i) { return a.v[i ^ 1]; });
  }
  // x in lanes [first, last), `other` elsewhere; 0 <= first, last <= 16.
  static F select_below(F x, int first, int last, F other) {
    return map([&](int i) { return i >= first && i < last ? x.v[i] : other.v[i]; });
  }
  // Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
  static float reduce_add(F x) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) x.v[i] += x.v[i + half];
    return x.v[0];
  }
  static float reduce_max(F x) {
    for (int half = 8; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) x.v[i] = x.v[i] > x.v[i + half] ? x.v[i] : x.v[i + half];
    return x.v[0];
  }

  static F load_f16(const void* p) {
    return map([&](int i) { return f16_to_f32(read<uint16_t>(p, i)); });
  }

  static I zero_i() { return set1_i(0); }
  static I set1_i(int32_t x) {
    return map_i([&](int) { return x; });
  }
  // 64 bytes: for each of 16 weight rows, 4 consecutive codes.
  static I line(const void* p) {
    I x;
    std::memcpy(x.v, p, 64);
    return x;
  }
  // 16 bytes, widened to int32.
  static I load_s8(const void* p) {
    return map_i([&](int i) { return int32_t(read<int8_t>(p, i)); });
  }
  // 32 bytes, widened to int16 in the halves of the lanes.
  static I load_s8_halves(const void* p) {
    return map_i([&](int i) {
      return int32_t(uint32_t(uint16_t(read<int8_t>(p, 2 * i))) | uint32_t(read<int8_t>(p, 2 * i + 1)) << 16);
    });
  }
  // Values must be within int8.
  static void store_s8(void* p, I x) {
    for (int i = 0; i < 16; ++i) ((int8_t*)p)[i] = int8_t(x.v[i]);
  }
  // Values must be within int16.
  static void store_s16(void* p, I x) {
    for (int i = 0; i < 16; ++i) ((int16_t*)p)[i] = int16_t(x.v[i]);
  }
  static I add_i(I a, I b) {
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i])); });
  }
  static I sub_i(I a, I b) {
    return map_i([&](int i) { return a.v[i] - b.v[i]; });
  }
  static I mul_i(I a, I b) {  // modulo 2^32
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) * uint32_t(b.v[i])); });
  }
  static I and_i(I a, I b) {
    return map_i([&](int i) { return a.v[i] & b.v[i]; });
  }
  static I or_i(I a, I b) {
    return map_i([&](int i) { return a.v[i] | b.v[i]; });
  }
  static I xor_i(I a, I b) {
    return map_i([&](int i) { return a.v[i] ^ b.v[i]; });
  }
  // 32-bit shifts, zeros shifted in; byte-wise users mask afterwards.
  template <int N>
  static I shl(I a) {
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) << N); });
  }
  template <int N>
  static I shr(I a) {
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) >> N); });
  }
  static I shr(I a, int n) {
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) >> n); });
  }
  template <int N>
  static I sar(I a) {  // arithmetic
    return map_i([&](int i) { return a.v[i] >> N; });
  }
  // Each lane as two 16-bit integers, the low and the high half.
  template <int N>
  static I shr_halves(I a) {
    return map_halves(a, [](uint32_t x) { return x >> N; });
  }
  template <int N>
  static I sar_halves(I a) {  // arithmetic
    return map_halves(a, [](uint32_t x) { return uint32_t(int16_t(x) >> N); });
  }
  static I sub_halves(I a, I b) {
    return map_i([&](int i) {
      const uint32_t x = uint32_t(a.v[i]), y = uint32_t(b.v[i]);
      return int32_t(((x - y) & 0xffff) | ((x >> 16) - (y >> 16)) << 16);
    });
  }
  static I swap_halves(I a) {
    return map_i([&](int i) { return int32_t(uint32_t(a.v[i]) >> 16 | uint32_t(a.v[i]) << 16); });
  }
  static F as_float(I a) {
    F x;
    std::memcpy(x.v, a.v, 64);
    return x;
  }
  static F to_float(I a) {
    return map([&](int i) { return float(a.v[i]); });
  }
  // To nearest even; INT32_MIN for NaN and what does not fit, as x86 does.
  static I round(F a) {
    return map_i([&](int i) {
      const float r = std::nearbyint(a.v[i]);
      return r >= -0x1p31f && r < 0x1p31f ? int32_t(r) : INT32_MIN;
    });
  }
  static int32_t reduce_add_i(I a) {
    int32_t sum = 0;
    for (int32_t x : a.v) sum += x;
    return sum;
  }

  // Lane 4 k + j: the sum of lanes 4 j .. 4 j + 3 of the k-th argument.
  static I add_quads(I a, I b, I c, I d) {
    const I* const all[] = {&a, &b, &c, &d};
    return map_i([&](int i) {
      const int32_t* quad = all[i / 4]->v + 4 * (i % 4);
      return quad[0] + quad[1] + quad[2] + quad[3];
    });
  }

  // 4 bytes in every lane.
  static I broadcast4(const void* p) { return set1_i(read<int32_t>(p, 0)); }
  // acc + dot product of 4 unsigned with 4 signed bytes in each lane, modulo 2^32. kWide: codes above 127
  // occur.
  template <bool kWide>
  static I dot4(I acc, I u8, I s8) {
    return map_i([&](int i) {
      uint32_t sum = uint32_t(acc.v[i]);
      for (int t = 0; t < 4; ++t)
        sum +=
            uint32_t(int32_t(uint8_t(uint32_t(u8.v[i]) >> (8 * t))) * int8_t(uint32_t(s8.v[i]) >> (8 * t)));
      return int32_t(sum);
    });
  }
  // acc + dot product of two signed 16-bit pairs in each lane, exact.
  static I dot2(I acc, I a, I b) {
    return map_i([&](int i) {
      return acc.v[i] + int16_t(a.v[i]) * int16_t(b.v[i]) + (a.v[i] >> 16) * (b.v[i] >> 16);
    });
  }
  // Every byte of `index` (0..15) replaced by table[byte].
  static I lookup16(I table, I index) {
    I x;
    const uint8_t* t = (const uint8_t*)table.v;
    for (int i = 0; i < 64; ++i) ((uint8_t*)x.v)[i] = t[((const uint8_t*)index.v)[i] & 15];
    return x;
  }
  static I table16(const uint8_t* p) {
    I x;
    for (int i = 0; i < 4; ++i) std::memcpy(x.v + 4 * i, p, 16);
    return x;
  }
  static Halves halves16(const int16_t* p) {
    Halves x;
    std::memcpy(x.v, p, 32);
    return x;
  }
  // Each half of every lane replaced by table[its 4 low bits]; the other bits do not count.
  static I lookup_halves(Halves table, I index) {
    return map_i([&](int i) {
      const uint32_t x = uint32_t(index.v[i]);
      return int32_t(uint32_t(uint16_t(table.v[x & 15])) | uint32_t(table.v[(x >> 16) & 15]) << 16);
    });
  }
  // Assembly in the other files: GCC takes a function that only prefetches for pure and drops its calls.
  static void prefetch(const void*) {}       // into the second-level cache
  static void prefetch_near(const void*) {}  // into the first-level cache

 private:
  template <class T>
  static T read(const void* p, int i) {
    T x;
    std::memcpy(&x, (const char*)p + size_t(i) * sizeof(T), sizeof(T));
    return x;
  }
  template <class Fn>
  static F map(Fn fn) {
    F x;
    for (int i = 0; i < 16; ++i) x.v[i] = fn(i);
    return x;
  }
  template <class Fn>
  static I map_i(Fn fn) {
    I x;
    for (int i = 0; i < 16; ++i) x.v[i] = fn(i);
    return x;
  }
  template <class Fn>
  static I map_halves(I a, Fn fn) {
    return map_i([&](int i) {
      const uint32_t x = uint32_t(a.v[i]);
      return int32_t((fn(x & 0xffff) & 0xffff) | fn(x >> 16) << 16);
    });
  }
};

}  // namespace maestrale::simd_scalar
