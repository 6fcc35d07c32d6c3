// SPDX-License-Identifier: Apache-2.0
// matmul_<type>, of floating types, rows as they are stored: out = x * weight^T, or out += x * weight^T where
// add is not 0; binary32 throughout. Grid (ceil(features / 4), ceil(rows / 8)), block 128: a warp takes one
// output feature of up to 8 rows of x, so a weight is unpacked once for 8 rows. Lane l sums columns l, l +
// 32, ... in ascending order, then the lanes are added in a tree: the bits of a row depend on nothing but
// that row.
#pragma once

#include "formats.cuh"

namespace maestrale::device {

constexpr int kMatmulRows = 8;

template <class Format>
__device__ void matmul(const Byte* weight, const float* x, float* out, int rows, int cols, int features,
                       long long row_bytes, int add) {
  const int feature = blockIdx.x * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (feature >= features) return;
  const int first = blockIdx.y * kMatmulRows, n = min(rows - first, kMatmulRows);
  const Byte* w = weight + feature * row_bytes;
  x += (long long)first * cols;
  float sums[kMatmulRows] = {};
  for (int at = lane; at < cols; at += 32) {
    const float value = Format::at(w, at >> 5, lane);
#pragma unroll
    for (int r = 0; r < kMatmulRows; ++r)
      if (r < n) sums[r] = fmaf(x[(long long)r * cols + at], value, sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kMatmulRows; ++r) {
    if (r >= n) return;
    const float sum = warp_sum(sums[r]);
    float* target = out + (long long)(first + r) * features + feature;
    if (lane == 0) *target = add ? *target + sum : sum;
  }
}

}  // namespace maestrale::device

#define MAESTRALE_MATMUL(Format, name)                                                                    \
  extern "C" __global__ void __launch_bounds__(128)                                                       \
      matmul_##name(const unsigned char* weight, const float* x, float* out, int rows, int cols,          \
                    int features, long long row_bytes, int add) {                                         \
    maestrale::device::matmul<maestrale::device::Format>(weight, x, out, rows, cols, features, row_bytes, \
                                                         add);                                            \
  }
MAESTRALE_MATMUL(F32, f32)
MAESTRALE_MATMUL(F16, f16)
MAESTRALE_MATMUL(BF16, bf16)
