// SPDX-License-Identifier: Apache-2.0
// Which stripe of which matrix a block works on, and what becomes of its sums.
#pragma once

#include "cuda/matmul_args.h"
#include "warp.cuh"

namespace maestrale::device {

using namespace cuda;

struct Work {
  const Byte *weight, *second;  // second: of kSwiGlu
  float* out;
  int features, stripe;
};

// The work of block `block` where a block takes `stripes` stripes of one matrix.
__device__ inline Work find_work(const MatmulArgs& args, int block, int stripes) {
  int part_blocks[2];
#pragma unroll
  for (int p = 0; p < 2; ++p) part_blocks[p] = (args.part[p].features + 16 * stripes - 1) / (16 * stripes);
  int begin = 0;
  MatmulArgs::Part part = args.part[0];
  if (args.epilogue != Epilogue::kSwiGlu && block >= part_blocks[0]) {
    begin = part_blocks[0];
    part = args.part[1];
    if (block >= part_blocks[0] + part_blocks[1]) {
      begin = part_blocks[0] + part_blocks[1];
      part = args.part[2];
    }
  }
  return {part.weight, args.part[1].weight, part.out, part.features, (block - begin) * stripes};
}

// silu(gate) * up
__device__ inline float gated(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

// Puts product m (of kSwiGlu the second follows the first, which waits in `out`).
__device__ inline void store(const MatmulArgs& args, const Work& work, int m, int row, int feature,
                             float sum) {
  if (row >= args.rows || feature >= work.features) return;
  float* out = work.out + (long long)row * work.features + feature;
  if (args.epilogue == Epilogue::kAdd)
    *out += sum;
  else
    *out = m > 0 ? gated(*out, sum) : sum;
}

}  // namespace maestrale::device
