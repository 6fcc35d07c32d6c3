// SPDX-License-Identifier: Apache-2.0
// What is to be done with outputs of several blocks is done by the block that finishes last, in the same
// launch. Which one that is changes nothing in the result.
#pragma once

namespace maestrale::device {

// For all threads of a block: adds `finished` to `arrivals` and says whether that makes `wanted`. Then what
// all blocks have stored before can be read with __ldcg, and the counter is zero again for the next launch.
__device__ inline bool is_last_block(int* arrivals, int finished, int wanted) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();  // after the barrier: for what all threads have stored
    is_last = atomicAdd(arrivals, finished) + finished == wanted;
    if (is_last) atomicExch(arrivals, 0);
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

}  // namespace maestrale::device
