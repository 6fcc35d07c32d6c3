// SPDX-License-Identifier: Apache-2.0
// matmul_f32, rows as they are stored: out = x * weight^T, or out += x * weight^T where add is not 0;
// binary32 throughout. Grid (ceil(features / 4), ceil(rows / 8)), block 128: a warp takes one output feature
// of up to 8 rows of x, so a weight is read once for 8 rows. Lane l sums columns l, l + 32, ... in ascending
// order, then the lanes are added in a tree: the bits of a row depend on nothing but that row.
#pragma once

#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(128)
    matmul_f32(const float* weight, const float* x, float* out, int rows, int cols, int features, int add) {
  constexpr int kRows = 8;
  const int feature = blockIdx.x * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (feature >= features) return;
  const int first = blockIdx.y * kRows, n = min(rows - first, kRows);
  const float* w = weight + (long long)feature * cols;
  x += (long long)first * cols;
  float sums[kRows] = {};
  for (int at = lane; at < cols; at += 32) {
    const float value = w[at];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (r < n) sums[r] = fmaf(x[(long long)r * cols + at], value, sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= n) return;
    const float sum = maestrale::device::warp_sum(sums[r]);
    float* target = out + (long long)(first + r) * features + feature;
    if (lane == 0) *target = add ? *target + sum : sum;
  }
}
