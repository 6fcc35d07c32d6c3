// SPDX-License-Identifier: Apache-2.0
// rope_append_<type>: rotates neighbouring pairs of q (in place) and k by the angles of the row's position,
// and stores k and v in the row's slot of the KV cache. Cosines and sines come from the host, in double
// precision rounded once: (rows, head_dim / 2) pairs.
//
// Grid (rows, heads + KV heads), block head_dim / 2.
#pragma once

#include "kv_page.cuh"

namespace maestrale::device {

// The greatest of the block's values, of which there are at most 64.
__device__ inline float block_max(float value) {
  __shared__ float all[64];
  all[threadIdx.x] = value;
  __syncthreads();
  float greatest = 0;
  for (int i = 0; i < blockDim.x; ++i) greatest = fmaxf(greatest, all[i]);
  __syncthreads();
  return greatest;
}

// Stores the pair of this thread; all of the block store one row.
template <class Kv>
__device__ void store_pair(unsigned char* row, float* scale, float2 pair) {
  float inverse = 1;
  if (Kv::kScaled) {
    const float greatest = block_max(fmaxf(fabsf(pair.x), fabsf(pair.y)));
    inverse = greatest > 0 ? 127.0f / greatest : 0.0f;
    if (threadIdx.x == 0) *scale = greatest / 127.0f;
  }
  Kv::store(row, 2 * threadIdx.x, pair.x, inverse);
  Kv::store(row, 2 * threadIdx.x + 1, pair.y, inverse);
}

template <class Kv>
__device__ void rope_append(float* q, const float* k, const float* v, const float2* angles,
                            const long long* slots, unsigned char* cache, long long page_bytes,
                            long long layer_at, int heads, int kv_heads) {
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
  const long long slot = slots[row];
  const int position = int(slot % kPage);
  const PageView<Kv> page = {
      cache + slot / kPage * page_bytes + layer_at + (head - heads) * PageView<Kv>::bytes(head_dim),
      head_dim};
  store_pair<Kv>(page.keys + position * head_dim * Kv::kBytes, page.key_scales() + position, out);
  store_pair<Kv>(page.values() + position * head_dim * Kv::kBytes, page.value_scales() + position,
                 reinterpret_cast<const float2*>(v)[at]);
}

}  // namespace maestrale::device

#define MAESTRALE_ROPE(Kv, name)                                                                     \
  extern "C" __global__ void __launch_bounds__(64) rope_append_##name(                               \
      float* q, const float* k, const float* v, const float2* angles, const long long* slots,        \
      unsigned char* cache, long long page_bytes, long long layer_at, int heads, int kv_heads) {     \
    maestrale::device::rope_append<maestrale::device::Kv>(q, k, v, angles, slots, cache, page_bytes, \
                                                          layer_at, heads, kv_heads);                \
  }
MAESTRALE_ROPE(KvF16, f16)
MAESTRALE_ROPE(KvBF16, bf16)
MAESTRALE_ROPE(KvQ8, q8_0)
