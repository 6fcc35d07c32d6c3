// SPDX-License-Identifier: Apache-2.0
// What becomes of a head of q, k or v: neighbouring pairs of queries (in place) and keys are rotated by the
// angles of the row's position, keys and values go to the row's slot of the KV cache. Cosines and sines come
// from the host, in double precision rounded once. Each operation rounds as written, wherever it is compiled.
//
// rope_append does that where no product has (finish_heads.cuh). Grid (rows, ceil((heads + 2 KV heads) / 4)),
// block 128: a warp takes a head of a row.
#pragma once

#include "cuda/head_args.h"
#include "kv_page.cuh"

namespace maestrale::device {

using cuda::CacheType, cuda::HeadArgs, cuda::Role;

// Lane l has the pairs l and l + 32 of a head, of which there are up to 64.
template <class Kv>
__device__ void append_head(const HeadArgs& args, bool is_key, int kv_head, int row, const float2 (&pairs)[2],
                            int lane) {
  const long long slot = args.slots[row];
  const int position = int(slot % kPage), head_dim = args.head_dim;
  const PageView<Kv> page = {
      args.cache + slot / kPage * args.page_bytes + args.layer_at + kv_head * PageView<Kv>::bytes(head_dim),
      head_dim};
  unsigned char* to = (is_key ? page.keys : page.values()) + position * head_dim * Kv::kBytes;
  float inverse = 1;
  if (Kv::kScaled) {
    float greatest = 0;
#pragma unroll
    for (const float2 pair : pairs) greatest = fmaxf(greatest, fmaxf(fabsf(pair.x), fabsf(pair.y)));
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
      greatest = fmaxf(greatest, __shfl_xor_sync(0xffffffff, greatest, step));
    inverse = greatest > 0 ? 127.0f / greatest : 0.0f;
    if (lane == 0) (is_key ? page.key_scales() : page.value_scales())[position] = greatest / 127.0f;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int pair = lane + 32 * h;
    if (2 * pair >= head_dim) break;
    Kv::store(to, 2 * pair, pairs[h].x, inverse);
    Kv::store(to, 2 * pair + 1, pairs[h].y, inverse);
  }
}

// For all lanes of a warp: `head`, of the role's own heads, of `row` has the values x.
__device__ inline void finish_head(const HeadArgs& args, Role role, int head, int row, float* x, int lane) {
  const int n_pairs = args.head_dim / 2;
  float2 pairs[2] = {};
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int pair = lane + 32 * h;
    if (pair >= n_pairs) break;
    const float2 in = __ldcg(reinterpret_cast<const float2*>(x) + pair);
    pairs[h] = in;
    if (role == Role::kValue) continue;
    const float2 angle = reinterpret_cast<const float2*>(args.angles)[(long long)row * n_pairs + pair];
    pairs[h] = {__fsub_rn(__fmul_rn(in.x, angle.x), __fmul_rn(in.y, angle.y)),
                __fmaf_rn(in.x, angle.y, __fmul_rn(in.y, angle.x))};
    if (role == Role::kQuery) reinterpret_cast<float2*>(x)[pair] = pairs[h];
  }
  if (role == Role::kQuery) return;
  const bool is_key = role == Role::kKey;
  if (args.type == CacheType::kF16)
    append_head<KvF16>(args, is_key, head, row, pairs, lane);
  else if (args.type == CacheType::kBF16)
    append_head<KvBF16>(args, is_key, head, row, pairs, lane);
  else
    append_head<KvQ8>(args, is_key, head, row, pairs, lane);
}

}  // namespace maestrale::device

extern "C" __global__ void __launch_bounds__(128)
    rope_append(const __grid_constant__ maestrale::cuda::HeadArgs args, float* q, float* k, float* v,
                int heads, int kv_heads) {
  using namespace maestrale::device;
  const int row = blockIdx.x, index = 4 * blockIdx.y + (threadIdx.x >> 5);
  if (index >= heads + 2 * kv_heads) return;
  const Role role = index < heads ? Role::kQuery : index < heads + kv_heads ? Role::kKey : Role::kValue;
  const int head = role == Role::kQuery ? index
                   : role == Role::kKey ? index - heads
                                        : index - heads - kv_heads;
  float* x = role == Role::kQuery ? q : role == Role::kKey ? k : v;
  const int of = role == Role::kQuery ? heads : kv_heads;
  finish_head(args, role, head, row, x + ((long long)row * of + head) * args.head_dim, threadIdx.x & 31);
}
