// SPDX-License-Identifier: Apache-2.0
// Split KV (Flash-Decoding): each chunk of the keys that queries see has a block of its own. It leaves what
// it knows of the softmax in memory, and the block that finishes last merges all of that, in the order of the
// keys, with the bits of a block that takes all of them. It keeps its own share in shared memory, so that n
// blocks read what n - 1 have left: of a chunk's keys and values 3.1 % in q8_0, half as much in 16 bits.
#pragma once

#include "last_block.cuh"
#include "softmax.cuh"

namespace maestrale::device {

// The share of this block, in shared memory: a row's values, then (greatest, sum). Pairs of four rows that
// a half warp writes together lie on different banks.
template <int kHeadDim>
struct OwnPartial {
  using Row = float[kHeadDim + 8];
  Row* rows;

  __device__ float* values(int m) const { return rows[m]; }
  __device__ float2* state(int m) const { return reinterpret_cast<float2*>(rows[m] + kHeadDim); }
};

// What blocks leave, in a grid of (tiles, KV heads, chunks): `rows` rows of values for each block, behind all
// of them (greatest, sum) of each row.
struct Partials {
  float* data;
  int* arrivals;  // zeros, one for each tile and KV head
  int rows;

  __device__ int tile() const { return blockIdx.x * gridDim.y + blockIdx.y; }
  __device__ long long row(int chunk, int m) const {
    return ((long long)tile() * gridDim.z + chunk) * rows + m;
  }
  __device__ float* values(int chunk, int m, int head_dim) const { return data + row(chunk, m) * head_dim; }
  __device__ float2* state(int chunk, int m, int head_dim) const {
    const long long all = (long long)gridDim.x * gridDim.y * gridDim.z * rows;
    return reinterpret_cast<float2*>(data + all * head_dim) + row(chunk, m);
  }

  // For all threads of a block, whose chunk is stored: says whether those of `chunks` blocks are.
  __device__ bool are_complete(int chunks) const { return is_last_block(arrivals + tile(), 1, chunks); }

  // out(m, d, the values from d on) for all of n_rows rows; a thread takes four dimensions of a row.
  template <int kHeadDim, class F>
  __device__ void merge(int chunks, const OwnPartial<kHeadDim>& own, int n_rows, int head_dim, F out) const {
    constexpr int kAtOnce = 8;  // chunks whose loads are on their way together
    const int vectors = head_dim / 4;
    for (int i = threadIdx.x; i < n_rows * vectors; i += blockDim.x) {
      const int m = i / vectors, d = 4 * (i % vectors);
      float greatest = -CUDART_INF_F, sum = 0;
      float4 value = {0, 0, 0, 0};
      for (int first = 0; first < chunks; first += kAtOnce) {
        float2 states[kAtOnce];
        float4 parts[kAtOnce];
#pragma unroll
        for (int c = 0; c < kAtOnce; ++c)
          if (first + c < chunks && first + c != int(blockIdx.z)) {
            states[c] = __ldcg(state(first + c, m, head_dim));
            parts[c] = __ldcg(reinterpret_cast<const float4*>(values(first + c, m, head_dim) + d));
          }
#pragma unroll
        for (int c = 0; c < kAtOnce; ++c)
          if (first + c < chunks) {
            if (first + c == int(blockIdx.z)) {
              states[c] = *own.state(m);
              parts[c] = *reinterpret_cast<const float4*>(own.values(m) + d);
            }
            const float next = fmaxf(greatest, states[c].x);
            const float shrink = decay(greatest, next), part_shrink = decay(states[c].x, next);
            greatest = next;
            sum = merged(sum, shrink, states[c].y, part_shrink);
            value.x = merged(value.x, shrink, parts[c].x, part_shrink);
            value.y = merged(value.y, shrink, parts[c].y, part_shrink);
            value.z = merged(value.z, shrink, parts[c].z, part_shrink);
            value.w = merged(value.w, shrink, parts[c].w, part_shrink);
          }
      }
      const float inverse = 1.0f / sum;
      out(m, d, float4{value.x * inverse, value.y * inverse, value.z * inverse, value.w * inverse});
    }
  }
};

}  // namespace maestrale::device
