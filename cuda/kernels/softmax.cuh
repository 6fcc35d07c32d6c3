// SPDX-License-Identifier: Apache-2.0
// The running softmax of attention: what is known of it after some keys is the greatest score, the sum of
// exp2(score - greatest), and the values summed with these weights. What is known after some keys and after
// others is merged; the order of merging decides the bits.
#pragma once

#include <math_constants.h>

namespace maestrale::device {

__device__ inline float decay(float greatest, float next) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(greatest - (next == -CUDART_INF_F ? 0.0f : next)));
  return result;
}
__device__ inline float merged(float sum, float shrink, float part, float part_shrink) {
  return fmaf(part, part_shrink, __fmul_rn(sum, shrink));
}
__device__ inline float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The state of a warp's 16 rows; a lane has rows lane / 4 + 8 h.
template <int kHeadDim>
struct Softmax {
  float greatest[2], sum[2];
  float values[kHeadDim / 8][4];

  __device__ void clear() {
#pragma unroll
    for (int h = 0; h < 2; ++h) greatest[h] = -CUDART_INF_F, sum[h] = 0;
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) values[n][i] = 0;
  }
  __device__ void merge(const Softmax& part) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float next = fmaxf(greatest[h], part.greatest[h]);
      const float shrink = decay(greatest[h], next), part_shrink = decay(part.greatest[h], next);
      greatest[h] = next;
      sum[h] = merged(sum[h], shrink, part.sum[h], part_shrink);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i)
          values[n][i] = merged(values[n][i], shrink, part.values[n][i], part_shrink);
    }
  }
};

}  // namespace maestrale::device
