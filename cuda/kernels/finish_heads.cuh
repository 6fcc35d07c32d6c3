// SPDX-License-Identifier: Apache-2.0
// RoPE and the KV cache in the launch of the product that makes q, k or v: the block that is the last to
// finish a head of 64 rows takes it. Heads begin at stripes, so head_dim is a multiple of 16.
#pragma once

#include "epilogue.cuh"
#include "last_block.cuh"
#include "rope.cuh"

namespace maestrale::device {

// As finish().
__device__ inline void finish_heads(const MatmulArgs& args, const Work& work, int stripes, int row_tile,
                                    int first_row, int rows) {
  const int head_dim = args.heads.head_dim, head_stripes = head_dim / kStripeRows;
  int p = 0, before = 0;  // which part this is, and the heads of the parts before it
  for (; args.part[p].out != work.out; ++p) before += args.part[p].features / head_dim;
  const Role role = args.part[p].role;
  const int end = min(work.stripe + stripes, work.features / kStripeRows);
  for (int head = work.stripe / head_stripes; head * head_stripes < end; ++head) {
    const int finished = min(end, (head + 1) * head_stripes) - max(work.stripe, head * head_stripes);
    if (!is_last_block(args.arrivals + row_tile * args.n_heads + before + head, finished, head_stripes))
      continue;
    for (int row = first_row + (threadIdx.x >> 5); row < first_row + rows; row += blockDim.x >> 5)
      finish_head(args.heads, role, head, row, work.out + (long long)row * work.features + head * head_dim,
                  threadIdx.x & 31);
  }
}

}  // namespace maestrale::device
