// SPDX-License-Identifier: Apache-2.0
// rope_append_<type>: rotates neighbouring pairs of q (in place) and k by the angles of the row's position,
// and stores k and v in the row's slot of the KV cache. Cosines and sines come from the host, in double
// precision rounded once: (rows, head_dim / 2) pairs.
//
// A page holds, for each layer and KV head, 64 positions of keys, then 64 of values, each (64, head_dim).
// Grid (rows, heads + KV heads), block head_dim / 2.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace maestrale::device {

__device__ inline void store(__half* p, float value) { *p = __float2half_rn(value); }
__device__ inline void store(__nv_bfloat16* p, float value) { *p = __float2bfloat16_rn(value); }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ void rope_append(float* q, const float* k, const float* v, const float2* angles,
                            const long long* slots, T* cache, int heads, int kv_heads) {
  const int row = blockIdx.x, pair = threadIdx.x, pairs = blockDim.x, head_dim = 2 * pairs;
  const float2 angle = angles[(long long)row * pairs + pair];
  const int head = blockIdx.y;
  const bool is_query = head < heads;
  const long long at = is_query ? ((long long)row * heads + head) * pairs + pair
                                : ((long long)row * kv_heads + head - heads) * pairs + pair;
  const float2 in = reinterpret_cast<const float2*>(is_query ? q : k)[at];
  const float2 out = {in.x * angle.x - in.y * angle.y, in.y * angle.x + in.x * angle.y};
  if (is_query) {
    reinterpret_cast<float2*>(q)[at] = out;
    return;
  }
  // slots[row] is the element of the key of KV head 0; heads follow at the distance of their 2 * 64 rows.
  T* key = cache + slots[row] + (long long)(head - heads) * 2 * 64 * head_dim + 2 * pair;
  const float2 value = reinterpret_cast<const float2*>(v)[at];
  store(key, out.x);
  store(key + 1, out.y);
  store(key + 64 * head_dim, value.x);
  store(key + 64 * head_dim + 1, value.y);
}

}  // namespace maestrale::device

#define MAESTRALE_ROPE(T, name)                                                          \
  extern "C" __global__ void __launch_bounds__(128)                                      \
      rope_append_##name(float* q, const float* k, const float* v, const float2* angles, \
                         const long long* slots, T* cache, int heads, int kv_heads) {    \
    maestrale::device::rope_append<T>(q, k, v, angles, slots, cache, heads, kv_heads);   \
  }
MAESTRALE_ROPE(__half, f16)
MAESTRALE_ROPE(__nv_bfloat16, bf16)
