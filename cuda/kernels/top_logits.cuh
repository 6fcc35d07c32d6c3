// SPDX-License-Identifier: Apache-2.0
// top_logits: the kTopLogits highest logits of each row, so that a step need not copy all of them to the
// host. Grid (rows), block 1024. Every thread finds the highest of its own share; the kTopLogits-th highest
// of these is a floor that at least as many logits reach, and where they are well mixed not many more: 300 of
// 32,000. Those are listed and ranked against each other. The result depends on the row alone.
#pragma once

#include "cuda/top_record.h"

namespace maestrale::device {

using namespace cuda;

// In the order of the floats, above all of them for NaN, never 0.
__device__ inline unsigned logit_key(float logit) {
  const unsigned bits = __float_as_uint(logit + 0.0f);  // there is one zero
  if (logit != logit) return 0xffffffff;
  return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
__device__ inline float logit_of_key(unsigned key) {
  return __uint_as_float(key & 0x80000000 ? key ^ 0x80000000 : ~key);
}

}  // namespace maestrale::device

extern "C" __global__ void __launch_bounds__(1024)
    top_logits(const float* logits, maestrale::cuda::TopRecord* records, int vocab_size) {
  using namespace maestrale::device;
  constexpr int kThreads = 1024, kListed = 1024;
  __shared__ unsigned long long list[kListed];  // keys, in the lower half the tokens, the lower one higher
  __shared__ int listed;
  const float* row = logits + (long long)blockIdx.x * vocab_size;
  TopRecord& record = records[blockIdx.x];
  const int thread = threadIdx.x;
  if (thread == 0) listed = 0;

  unsigned highest = 0;
  for (int t = thread; t < vocab_size; t += kThreads) highest = max(highest, logit_key(row[t]));
  unsigned floor = 0;
#pragma unroll 1
  for (unsigned bit = 0x80000000; bit != 0; bit >>= 1)
    if (__syncthreads_count(highest >= (floor | bit)) >= kTopLogits) floor |= bit;

  for (int t = thread; t < vocab_size; t += kThreads) {
    const unsigned key = logit_key(row[t]);
    if (key < floor) continue;
    const int at = atomicAdd(&listed, 1);
    if (at < kListed) list[at] = (unsigned long long)key << 32 | ~(unsigned)t;
  }
  __syncthreads();
  const int n = listed;
  if (n > kListed) {
    if (thread == 0) record.count = 0;
    return;
  }
  const unsigned long long own = thread < n ? list[thread] : 0;
  int rank = 0;
  if (thread < n)
    for (int i = 0; i < n; ++i) rank += list[i] > own;
  __syncthreads();
  if (thread < n) list[rank] = own;
  __syncthreads();
  if (thread < min(n, kTopLogits)) {
    record.tokens[thread] = int(~(unsigned)list[thread]);
    record.logits[thread] = logit_of_key(list[thread] >> 32);
  }
  if (thread == 0) {
    record.count = min(n, kTopLogits);
    record.rest = n > kTopLogits    ? logit_of_key(list[kTopLogits] >> 32)
                  : n == vocab_size ? -INFINITY
                                    : logit_of_key(floor);
  }
}
