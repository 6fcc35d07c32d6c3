// SPDX-License-Identifier: Apache-2.0
// The storage types of weights as files hold them (native/quant describes the blocks). Of weight
// 32 * chunk + lane of a stored row
//
//   Format::code(row, chunk, lane)   is the code, and
//   Format::at(row, chunk, lane)     the value in the very arithmetic of dequantize(): products and sums are
//                                    rounded one by one, nothing is contracted.
//
// code ^ kFlip is the signed code in two's complement.
#pragma once

#include <cuda_fp16.h>

#include "four_bit.cuh"
#include "warp.cuh"

namespace maestrale::device {

__device__ inline float half_at(const Byte* p) {
  return __half2float(__ushort_as_half(*reinterpret_cast<const unsigned short*>(p)));
}
__device__ inline float bfloat_at(const Byte* p) {
  return __uint_as_float(unsigned(*reinterpret_cast<const unsigned short*>(p)) << 16);
}
// Code `lane` of 32 nibbles: the low halves first.
__device__ inline int nibble(const Byte* qs, int lane) { return (qs[lane & 15] >> (lane >> 4) * 4) & 15; }
__device__ inline int fifth_bit(const Byte* qh, int lane) { return (qh[lane >> 3] >> (lane & 7) & 1) << 4; }
// d * scale * q and d * scale * q - dmin * min.
__device__ inline float scaled(float d, int scale, int q) {
  return __fmul_rn(__fmul_rn(d, float(scale)), float(q));
}
__device__ inline float scaled(float d, int scale, int q, float dmin, int min) {
  return __fsub_rn(scaled(d, scale, q), __fmul_rn(dmin, float(min)));
}

__device__ constexpr signed char kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                   1,    13,   25,  38,  53,  69,  89,  113};

struct F32 {
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return reinterpret_cast<const float*>(row)[32 * chunk + lane];
  }
};
struct F16 {
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return half_at(row + 2 * (32 * chunk + lane));
  }
};
struct BF16 {
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return bfloat_at(row + 2 * (32 * chunk + lane));
  }
};
struct Q4_0 {
  static constexpr int kBlockBytes = 18, kFlip = 8;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return nibble(row + kBlockBytes * chunk + 2, lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return half_at(row + kBlockBytes * chunk) * float(code(row, chunk, lane) - 8);
  }
};
struct Q4_1 {
  static constexpr int kBlockBytes = 20, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return nibble(row + kBlockBytes * chunk + 4, lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * chunk;
    return __fadd_rn(__fmul_rn(half_at(block), float(code(row, chunk, lane))), half_at(block + 2));
  }
};
struct Q5_0 {
  static constexpr int kBlockBytes = 22, kFlip = 16;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * chunk;
    return nibble(block + 6, lane) | fifth_bit(block + 2, lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return half_at(row + kBlockBytes * chunk) * float(code(row, chunk, lane) - 16);
  }
};
struct Q5_1 {
  static constexpr int kBlockBytes = 24, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * chunk;
    return nibble(block + 8, lane) | fifth_bit(block + 4, lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * chunk;
    return __fadd_rn(__fmul_rn(half_at(block), float(code(row, chunk, lane))), half_at(block + 2));
  }
};
struct Q8_0 {
  static constexpr int kBlockBytes = 34, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return static_cast<signed char>(row[kBlockBytes * chunk + 2 + lane]);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return half_at(row + kBlockBytes * chunk) * float(code(row, chunk, lane));
  }
};
// In the types of 256 weights a chunk is sub-block s = chunk % 8, of 32 weights.
struct Q2_K {
  static constexpr int kBlockBytes = 84, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const int s = chunk & 7;
    return row[kBlockBytes * (chunk >> 3) + 16 + 32 * (s >> 2) + lane] >> 2 * (s & 3) & 3;
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int s = chunk & 7, scale = block[2 * s + (lane >> 4)];
    return scaled(half_at(block + 80), scale & 15, code(row, chunk, lane), half_at(block + 82), scale >> 4);
  }
};
struct Q3_K {
  static constexpr int kBlockBytes = 110, kFlip = 4;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int s = chunk & 7;
    return (block[32 + 32 * (s >> 2) + lane] >> 2 * (s & 3) & 3) | (block[lane] >> s & 1) << 2;
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const Byte* scales = block + 96;
    const int s = chunk & 7, j = 2 * s + (lane >> 4);
    const int low = scales[j & 7] >> (j >> 3) * 4 & 15, high = scales[8 + (j & 3)] >> 2 * (j >> 2) & 3;
    return scaled(half_at(block + 108), (low | high << 4) - 32, code(row, chunk, lane) - 4);
  }
};
// The 6-bit scale and minimum of sub-block s of Q4_K and Q5_K.
__device__ inline int2 scale_min(const Byte* packed, int s) {
  if (s < 4) return {packed[s] & 63, packed[s + 4] & 63};
  return {(packed[s + 4] & 15) | packed[s - 4] >> 6 << 4, packed[s + 4] >> 4 | packed[s] >> 6 << 4};
}
struct Q4_K {
  static constexpr int kBlockBytes = 144, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const int s = chunk & 7;
    return row[kBlockBytes * (chunk >> 3) + 16 + 32 * (s >> 1) + lane] >> (s & 1) * 4 & 15;
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int2 sm = scale_min(block + 4, chunk & 7);
    return scaled(half_at(block), sm.x, code(row, chunk, lane), half_at(block + 2), sm.y);
  }
};
struct Q5_K {
  static constexpr int kBlockBytes = 176, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int s = chunk & 7;
    return (block[48 + 32 * (s >> 1) + lane] >> (s & 1) * 4 & 15) | (block[16 + lane] >> s & 1) << 4;
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int2 sm = scale_min(block + 4, chunk & 7);
    return scaled(half_at(block), sm.x, code(row, chunk, lane), half_at(block + 2), sm.y);
  }
};
struct Q6_K {
  static constexpr int kBlockBytes = 210, kFlip = 32;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int s = chunk & 7, h = s >> 2, g = s & 3;
    const int low = block[64 * h + 32 * (g & 1) + lane] >> (g >> 1) * 4 & 15;
    return low | (block[128 + 32 * h + lane] >> 2 * g & 3) << 4;
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int scale = static_cast<signed char>(block[192 + 2 * (chunk & 7) + (lane >> 4)]);
    return scaled(half_at(block + 208), scale, code(row, chunk, lane) - 32);
  }
};
struct IQ4_NL {
  static constexpr int kBlockBytes = 18, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return nibble(row + kBlockBytes * chunk + 2, lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    return half_at(row + kBlockBytes * chunk) * float(kIq4Values[code(row, chunk, lane)]);
  }
};
struct IQ4_XS {
  static constexpr int kBlockBytes = 136, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return nibble(row + kBlockBytes * (chunk >> 3) + 8 + 16 * (chunk & 7), lane);
  }
  static __device__ float at(const Byte* row, int chunk, int lane) {
    const Byte* block = row + kBlockBytes * (chunk >> 3);
    const int s = chunk & 7, low = block[4 + (s >> 1)] >> (s & 1) * 4 & 15;
    const int high = block[2 + (s >> 2)] >> 2 * (s & 3) & 3;
    return scaled(half_at(block), (low | high << 4) - 32, kIq4Values[code(row, chunk, lane)]);
  }
};
// Blocks of 64: a chunk is half of one. The high nibble comes first.
template <class Table>
struct FourBit {
  static constexpr int kBlockBytes = 36, kFlip = 0;
  static __device__ int code(const Byte* row, int chunk, int lane) {
    return row[kBlockBytes * (chunk >> 1) + 4 + 16 * (chunk & 1) + (lane >> 1)] >> 4 * (~lane & 1) & 15;
  }
};
using NF4 = FourBit<NF4Table>;
using FP4 = FourBit<FP4Table>;

}  // namespace maestrale::device

// Expands what(Format, suffix of the kernel's name) for every storage type of an embedding.
#define MAESTRALE_FOR_FORMATS(what)                                                                         \
  what(F32, f32) what(F16, f16) what(BF16, bf16) what(Q4_0, q4_0) what(Q4_1, q4_1) what(Q5_0, q5_0)         \
      what(Q5_1, q5_1) what(Q8_0, q8_0) what(Q2_K, q2_k) what(Q3_K, q3_k) what(Q4_K, q4_k) what(Q5_K, q5_k) \
          what(Q6_K, q6_k) what(IQ4_NL, iq4_nl) what(IQ4_XS, iq4_xs)
