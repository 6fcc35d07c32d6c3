// SPDX-License-Identifier: Apache-2.0
// matmul_f32, rows as they are stored: out = x * weight^T, or out += x * weight^T, of up to three weights;
// binary32 throughout. Grid (ceil(most features / 4), ceil(rows / 8), weights), block 128: a warp takes one
// output feature of up to 8 rows of x, so a weight is read once for 8 rows. Lane l sums columns l, l + 32,
// ... in ascending order, then the lanes are added in a tree: the bits of a row depend on nothing but that
// row.
#pragma once

#include "cuda/matmul_args.h"
#include "warp.cuh"

extern "C" __global__ void __launch_bounds__(128)
    matmul_f32(const __grid_constant__ maestrale::cuda::F32Args args) {
  constexpr int kRows = 8;
  const auto part = [](const auto(&of)[3]) {
    return blockIdx.z == 0 ? of[0] : blockIdx.z == 1 ? of[1] : of[2];
  };
  const int feature = blockIdx.x * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  const int features = part(args.features), cols = args.cols;
  if (feature >= features) return;
  const int first = blockIdx.y * kRows, n = min(args.rows - first, kRows);
  const float* w = part(args.weight) + (long long)feature * cols;
  const float* x = args.x + (long long)first * cols;
  float sums[kRows] = {};
  for (int at = lane; at < cols; at += 32) {
    const float value = w[at];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (r < n) sums[r] = fmaf(x[(long long)r * cols + at], value, sums[r]);
  }
  float* out = part(args.out) + (long long)first * features + feature;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= n) return;
    const float sum = maestrale::device::warp_sum(sums[r]);
    float* target = out + (long long)r * features;
    if (lane == 0) *target = args.adds ? *target + sum : sum;
  }
}
