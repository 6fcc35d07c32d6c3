// SPDX-License-Identifier: Apache-2.0
// A page of the KV cache as kernels see it. For each layer and KV head it holds 64 positions of keys, then 64
// of values, each (64, head_dim); q8_0 adds a binary32 scale per position, of the keys, then of the values.
//
// A storage type says how a row is written and how its elements get into shared memory as halves, in which
// all products are computed: f16 as it is; bf16 and q8_0 rounded to 11 bits, which their own rounding
// exceeds.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tensor_core.cuh"

namespace maestrale::device {

constexpr int kPage = 64;  // positions

// The keys and values of one page, layer and KV head.
template <class Kv>
struct PageView {
  unsigned char* keys;
  int head_dim;

  static __device__ long long bytes(int head_dim) {
    return 2ll * kPage * (head_dim * Kv::kBytes + (Kv::kScaled ? 4 : 0));
  }
  __device__ unsigned char* values() const { return keys + kPage * head_dim * Kv::kBytes; }
  __device__ float* key_scales() const {
    return reinterpret_cast<float*>(keys + 2 * kPage * head_dim * Kv::kBytes);
  }
  __device__ float* value_scales() const { return key_scales() + kPage; }
};

struct KvF16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static __device__ void store(unsigned char* row, int i, float value, float) {
    reinterpret_cast<__half*>(row)[i] = __float2half_rn(value);
  }
  // Elements [i, i + 8) of a row; zeros where `inside` is false, which then is not read.
  static __device__ void copy8(__half* to, const unsigned char* row, int i, const float*, bool inside) {
    copy16(to, row + 2 * i, inside);
  }
};

struct KvBF16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static __device__ void store(unsigned char* row, int i, float value, float) {
    reinterpret_cast<__nv_bfloat16*>(row)[i] = __float2bfloat16_rn(value);
  }
  static __device__ unsigned halves(unsigned pair) {
    const float most = 65504;
    const float low = __uint_as_float(pair << 16), high = __uint_as_float(pair & 0xffff0000u);
    return pack_halves(fminf(fmaxf(low, -most), most), fminf(fmaxf(high, -most), most));
  }
  static __device__ void copy8(__half* to, const unsigned char* row, int i, const float*, bool inside) {
    uint4 v = {0, 0, 0, 0};
    if (inside) v = *reinterpret_cast<const uint4*>(row + 2 * i);
    *reinterpret_cast<uint4*>(to) = {halves(v.x), halves(v.y), halves(v.z), halves(v.w)};
  }
};

struct KvQ8 {
  static constexpr int kBytes = 1;
  static constexpr bool kScaled = true;
  static __device__ void store(unsigned char* row, int i, float value, float inverse) {
    reinterpret_cast<signed char*>(row)[i] = static_cast<signed char>(__float2int_rn(value * inverse));
  }
  static __device__ unsigned halves(unsigned word, int byte, float scale) {
    const int low = static_cast<signed char>(word >> 8 * byte),
              high = static_cast<signed char>(word >> 8 * byte + 8);
    return pack_halves(float(low) * scale, float(high) * scale);
  }
  static __device__ void copy8(__half* to, const unsigned char* row, int i, const float* scale, bool inside) {
    uint4 v = {0, 0, 0, 0};
    if (inside) {
      const uint2 codes = *reinterpret_cast<const uint2*>(row + i);
      const float s = *scale;
      v = {halves(codes.x, 0, s), halves(codes.x, 2, s), halves(codes.y, 0, s), halves(codes.y, 2, s)};
    }
    *reinterpret_cast<uint4*>(to) = v;
  }
};

}  // namespace maestrale::device
