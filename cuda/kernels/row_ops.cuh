// SPDX-License-Identifier: Apache-2.0
// Operations on rows of activations: rms_norm, silu_multiply, gather_rows.
#pragma once

#include "epilogue.cuh"

// out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.   Grid (rows), block 256; out may be x.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* x, const float* weight, float* out, int cols, float eps) {
  __shared__ float sums[8];
  const long long base = (long long)blockIdx.x * cols;
  float sum = 0;
  for (int i = threadIdx.x; i < cols; i += 256) sum = fmaf(x[base + i], x[base + i], sum);
  sum = maestrale::device::warp_sum(sum);
  if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < 8; ++w) total += sums[w];
  const float scale = 1.0f / sqrtf(total / float(cols) + eps);
  for (int i = threadIdx.x; i < cols; i += 256) out[base + i] = x[base + i] * scale * weight[i];
}

// gate = silu(gate) .* up, element by element.   Grid (ceil(n / 256)), block 256.
extern "C" __global__ void __launch_bounds__(256) silu_multiply(float* gate, const float* up, long long n) {
  const long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i < n) gate[i] = maestrale::device::gated(gate[i], up[i]);
}

// out[i] = x[rows[i]].   Grid (ceil(cols / 256)), block 256: a thread moves its column of every row in turn,
// so out may be x where rows ascends.
extern "C" __global__ void __launch_bounds__(256)
    gather_rows(const float* x, const int* rows, float* out, int n_rows, int cols) {
  const int col = blockIdx.x * 256 + threadIdx.x;
  if (col >= cols) return;
  for (int i = 0; i < n_rows; ++i) out[(long long)i * cols + col] = x[(long long)rows[i] * cols + col];
}
