// SPDX-License-Identifier: Apache-2.0
// attention_<type>: causal grouped-query attention over the paged cache (layout: rope.cuh), within the
// sliding window; one online softmax (Milakov 2018) in binary32 for decoding and prefill alike.
//
// Grid (rows, heads), block 32: a warp takes one query. It visits the positions in tiles of 32 with absolute
// borders: first every lane has a key, then every lane has dimensions of the values. The bits of a query
// therefore depend neither on the batch nor on how the prompt was cut. Tiles outside the window are not read.
#pragma once

#include <math_constants.h>

#include "matmul.cuh"
#include "rope.cuh"

namespace maestrale::device {

constexpr int kMaxHeadDim = 256;

// What a row attends to: positions first .. last; its page table is pages[page ..], whose first entry holds
// position 64 * first_page.
struct Query {
  long long first, last, first_page;
  long long page;
};

template <class T>
__device__ void attention(const float* q, float* out, const Query* queries, const int* pages, const T* cache,
                          long long page_elements, long long layer_offset, int group, int head_dim,
                          float scale) {
  __shared__ float query[kMaxHeadDim];
  const int lane = threadIdx.x, head = blockIdx.y;
  const long long base = ((long long)blockIdx.x * gridDim.y + head) * head_dim;
  for (int d = lane; d < head_dim; d += 32) query[d] = q[base + d] * scale;
  __syncwarp();
  const Query row = queries[blockIdx.x];
  const T* keys = cache + layer_offset + (long long)(head / group) * 2 * 64 * head_dim;
  float greatest = -CUDART_INF_F, sum = 0, sums[kMaxHeadDim / 32] = {};
  for (long long tile = row.first & ~31ll; tile <= row.last; tile += 32) {
    const T* page = keys + pages[row.page + (tile >> 6) - row.first_page] * page_elements;
    const T* key = page + ((tile & 63) + lane) * head_dim;
    const bool visible = tile + lane >= row.first && tile + lane <= row.last;
    float score = -CUDART_INF_F;
    if (visible) {
      score = 0;
      for (int d = 0; d < head_dim; ++d) score = fmaf(query[d], widen(key[d]), score);
    }
    float top = score;
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, step));
    const float next = fmaxf(greatest, top), shrink = expf(greatest - next);
    const float weight = visible ? expf(score - next) : 0.0f;
    sum = sum * shrink + warp_sum(weight);
    greatest = next;
#pragma unroll
    for (int i = 0; i < kMaxHeadDim / 32; ++i) sums[i] *= shrink;
    const int begin = int(max(row.first - tile, 0ll)), end = int(min(row.last - tile, 31ll));
    const T* values = page + (64 + (tile & 63)) * head_dim;
    for (int j = begin; j <= end; ++j) {
      const float w = __shfl_sync(0xffffffff, weight, j);
#pragma unroll
      for (int i = 0; i < kMaxHeadDim / 32; ++i)
        if (lane + 32 * i < head_dim) sums[i] = fmaf(w, widen(values[j * head_dim + lane + 32 * i]), sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kMaxHeadDim / 32; ++i)
    if (lane + 32 * i < head_dim) out[base + lane + 32 * i] = sums[i] / sum;
}

}  // namespace maestrale::device

#define MAESTRALE_ATTENTION(T, name)                                                                         \
  extern "C" __global__ void __launch_bounds__(32) attention_##name(                                         \
      const float* q, float* out, const maestrale::device::Query* queries, const int* pages, const T* cache, \
      long long page_elements, long long layer_offset, int group, int head_dim, float scale) {               \
    maestrale::device::attention<T>(q, out, queries, pages, cache, page_elements, layer_offset, group,       \
                                    head_dim, scale);                                                        \
  }
MAESTRALE_ATTENTION(__half, f16)
MAESTRALE_ATTENTION(__nv_bfloat16, bf16)
