// SPDX-License-Identifier: Apache-2.0
// What LoRA adapters add to products, for rows of any adapters in one launch:
//
//   low_rank_down   down[r][p] = scaling * (x[r] * lora_a^T)   of product p; x may stand for its RMSNorm.
//                   Grid (kDownBlocks a product, segments), block kDownThreads
//   low_rank_up     factor .* (out[r] + down[r][p] * lora_b^T), which goes where LowRankArgs says, also for
//                   rows without an adapter. Grid (ceil(features / kUpThreads) a product, gate and up being
//                   one, segments), block kUpThreads: a thread has one feature
//
// in binary32. Every sum of a row has an order of its own, whoever shares the segment.
#pragma once

#include "cuda/low_rank_args.h"
#include "epilogue.cuh"
#include "warp.cuh"

namespace maestrale::device {

using namespace cuda;

constexpr int kUpRanks = 64;  // columns of lora_b for which a block keeps `down` in shared memory

// For what no launch of the step writes.
template <class T>
__device__ inline T read(GlobalAddress at) {
  return __ldg(reinterpret_cast<const T*>(at));
}
// shared = what lies there, zeros at 0. For all threads of a block: none of them has to hold it, and it is
// read once.
template <class T>
__device__ inline void share(GlobalAddress at, T& shared) {
  if (threadIdx.x < sizeof(T) / 16)
    reinterpret_cast<uint4*>(&shared)[threadIdx.x] = at != 0 ? read<uint4>(at + 16 * threadIdx.x) : uint4{};
  __syncthreads();
}
__device__ inline void share_delta(const Segment& segment, int number, Delta& shared) {
  share(segment.deltas != 0 ? segment.deltas + number * sizeof(Delta) : 0, shared);
}

__device__ inline LowRankArgs::Part part_of(const LowRankArgs& args, int product) {
  return product == 0 ? args.part[0] : product == 1 ? args.part[1] : args.part[2];
}

// Two neighbouring values of 16 bits.
template <FactorType type>
__device__ inline float2 unpack(unsigned bits) {
  if constexpr (type == FactorType::kF16) return {half_bits(bits & 0xffff), half_bits(bits >> 16)};
  return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000)};
}

// Values index .. index + 3 of a matrix; index is a multiple of 4.
template <FactorType type>
__device__ inline float4 load_factors(GlobalAddress matrix, long long index) {
  if constexpr (type == FactorType::kF32) return read<float4>(matrix + 4 * index);
  const uint2 bits = read<uint2>(matrix + 2 * index);
  const float2 low = unpack<type>(bits.x), high = unpack<type>(bits.y);
  return {low.x, low.y, high.x, high.y};
}
// The eight values of the next pieces of a row of lora_b, which lie `step` bytes apart.
template <FactorType type>
__device__ inline void load_pieces(GlobalAddress& piece, long long step, float4 (&b)[2]) {
  if constexpr (type == FactorType::kF32) {
    b[0] = read<float4>(piece);
    b[1] = read<float4>(piece += step);
  } else {
    const uint4 bits = read<uint4>(piece);
    const float2 v[4] = {unpack<type>(bits.x), unpack<type>(bits.y), unpack<type>(bits.z),
                         unpack<type>(bits.w)};
    b[0] = {v[0].x, v[0].y, v[1].x, v[1].y};
    b[1] = {v[2].x, v[2].y, v[3].x, v[3].y};
  }
  piece += step;
}

// sum + a * b
__device__ inline float dot4(float4 a, float4 b, float sum) {
  return fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
}

// sums[i][r] += x[r] * row first_rank + i of lora_a, squares[r] += x[r]^2, over the columns of this thread.
template <FactorType type>
__device__ inline void sum_columns(const LowRankArgs& args, const Delta& delta, const float* x, int n_rows,
                                   int first_rank, float (&sums)[kDownRanks][kSegmentRows],
                                   float (&squares)[kSegmentRows]) {
  for (int at = 4 * threadIdx.x; at < args.cols; at += 4 * kDownThreads) {
    float4 a[kDownRanks] = {};
#pragma unroll
    for (int i = 0; i < kDownRanks; ++i)
      if (first_rank + i < delta.rank)
        a[i] = load_factors<type>(delta.lora_a, (long long)(first_rank + i) * args.cols + at);
    float4 norm = {1, 1, 1, 1};
    if (args.norm != nullptr) norm = *reinterpret_cast<const float4*>(args.norm + at);
#pragma unroll
    for (int r = 0; r < kSegmentRows; ++r) {
      if (r >= n_rows) break;
      float4 v = *reinterpret_cast<const float4*>(x + (long long)r * args.cols + at);
      squares[r] = dot4(v, v, squares[r]);
      v = {v.x * norm.x, v.y * norm.y, v.z * norm.z, v.w * norm.w};
#pragma unroll
      for (int i = 0; i < kDownRanks; ++i) sums[i][r] = dot4(v, a[i], sums[i][r]);
    }
  }
}

__device__ inline void low_rank_down(const LowRankArgs& args, float eps) {
  constexpr int kWarps = kDownThreads / 32;
  __shared__ float partial[kWarps][kDownRanks + 1][kSegmentRows];  // the last row: of squares
  __shared__ Segment segment;
  __shared__ Delta delta;
  share(GlobalAddress(args.segments + blockIdx.y), segment);
  const int product = blockIdx.x / kDownBlocks, block = blockIdx.x % kDownBlocks;
  share_delta(segment, part_of(args, product).number, delta);
  if (delta.lora_a == 0) return;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int n = segment.n_rows, padded_rank = (delta.rank + 15) & ~15;
  const float* x = args.x + (long long)segment.first_row * args.cols;
  for (int rank = kDownRanks * block; rank < padded_rank; rank += kDownRanks * kDownBlocks) {
    float sums[kDownRanks][kSegmentRows] = {}, squares[kSegmentRows] = {};
    if (delta.a_type == FactorType::kF32)
      sum_columns<FactorType::kF32>(args, delta, x, n, rank, sums, squares);
    else if (delta.a_type == FactorType::kF16)
      sum_columns<FactorType::kF16>(args, delta, x, n, rank, sums, squares);
    else
      sum_columns<FactorType::kBF16>(args, delta, x, n, rank, sums, squares);
#pragma unroll
    for (int r = 0; r < kSegmentRows; ++r) {
      if (r >= n) break;
      const float square = warp_sum(squares[r]);
      if (lane == 0) partial[warp][kDownRanks][r] = square;
#pragma unroll
      for (int i = 0; i < kDownRanks; ++i) {
        const float sum = warp_sum(sums[i][r]);
        if (lane == 0) partial[warp][i][r] = sum;
      }
    }
    __syncthreads();
    const int i = threadIdx.x / kSegmentRows, r = threadIdx.x % kSegmentRows;
    if (i < kDownRanks && r < n) {
      float sum = 0, square = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        sum += partial[w][i][r];
        square += partial[w][kDownRanks][r];
      }
      if (args.norm != nullptr) sum *= 1.0f / sqrtf(square / float(args.cols) + eps);
      const long long row = 3LL * (segment.first_row + r) + product;
      __stcg(reinterpret_cast<float*>(segment.down) + row * segment.down_rank + rank + i,
             delta.scaling * sum);
    }
    __syncthreads();
  }
}

// sums[r] += down[r] * the ranks first .. first + n - 1, a multiple of 16, of the feature's row of lora_b.
template <FactorType type>
__device__ inline void sum_ranks(const Delta& delta, int features, int feature, int first, int n, int n_rows,
                                 const float (&down)[kSegmentRows][kUpRanks], float (&sums)[kSegmentRows]) {
  constexpr int kPieceRanks = type == FactorType::kF32 ? 4 : 8;
  const long long step = (long long)kPieceBytes * features;
  GlobalAddress piece = delta.lora_b + first / kPieceRanks * step + kPieceBytes * feature;
  for (int k = 0; k < n; k += 8) {
    float4 b[2];
    load_pieces<type>(piece, step, b);
#pragma unroll
    for (int r = 0; r < kSegmentRows; ++r) {
      if (r >= n_rows) break;
      const auto* d = reinterpret_cast<const float4*>(&down[r][k]);
      sums[r] = dot4(d[1], b[1], dot4(d[0], b[0], sums[r]));
    }
  }
}

// values[r] = what the adapter makes of an output of rows of the segment. For all threads of a block; a
// feature may lie behind the last one.
__device__ inline void adapted_outputs(const Segment& segment, int product, const LowRankArgs::Part& part,
                                       const Delta& delta, int feature, float (&values)[kSegmentRows]) {
  __shared__ __align__(16) float down[kSegmentRows][kUpRanks];
  const bool has_feature = feature < part.features;
  const int n_rows = segment.n_rows;
  float sums[kSegmentRows] = {};
  const int padded_rank = delta.lora_a != 0 ? (delta.rank + 15) & ~15 : 0;
  for (int first = 0; first < padded_rank; first += kUpRanks) {
    const int n = min(kUpRanks, padded_rank - first);
    __syncthreads();  // for what was there before
    for (int i = threadIdx.x; i < n_rows * n; i += kUpThreads) {
      const int r = i / n, k = i - r * n;
      const long long row = 3LL * (segment.first_row + r) + product;
      down[r][k] = __ldcg(reinterpret_cast<const float*>(segment.down) + row * segment.down_rank + first + k);
    }
    __syncthreads();
    if (!has_feature) continue;
    if (delta.b_type == FactorType::kF32)
      sum_ranks<FactorType::kF32>(delta, part.features, feature, first, n, n_rows, down, sums);
    else if (delta.b_type == FactorType::kF16)
      sum_ranks<FactorType::kF16>(delta, part.features, feature, first, n, n_rows, down, sums);
    else
      sum_ranks<FactorType::kBF16>(delta, part.features, feature, first, n, n_rows, down, sums);
  }
  if (!has_feature) return;
  const float factor = delta.factor != 0 ? read<float>(delta.factor + sizeof(float) * feature) : 1.0f;
  const float* out = part.out + (long long)segment.first_row * part.features + feature;
#pragma unroll
  for (int r = 0; r < kSegmentRows; ++r) {
    if (r >= n_rows) break;
    values[r] = __ldcg(out + (long long)r * part.features);
    if (delta.lora_a != 0) values[r] = (values[r] + sums[r]) * factor;
  }
}

__device__ inline void low_rank_up(const LowRankArgs& args) {
  __shared__ Segment segment;
  __shared__ Delta delta, up_delta;
  share(GlobalAddress(args.segments + blockIdx.y), segment);
  const int n_rows = segment.n_rows;
  if (n_rows == 0) return;
  int product = 0, block = blockIdx.x;
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int blocks = (args.part[p].features + kUpThreads - 1) / kUpThreads;
    if (args.epilogue != Epilogue::kStore || product < p || block < blocks) continue;
    block -= blocks;
    product = p + 1;
  }
  const LowRankArgs::Part part = part_of(args, product);
  share_delta(segment, part.number, delta);
  if (args.epilogue == Epilogue::kStore && delta.lora_a == 0) return;
  const int feature = kUpThreads * block + threadIdx.x;
  float values[kSegmentRows], ups[kSegmentRows];
  adapted_outputs(segment, product, part, delta, feature, values);
  if (args.epilogue == Epilogue::kSwiGlu) {
    share_delta(segment, args.part[1].number, up_delta);
    adapted_outputs(segment, 1, args.part[1], up_delta, feature, ups);
  }
  if (feature >= part.features) return;
  const long long at = (long long)segment.first_row * part.features + feature;
  float* to = (args.epilogue == Epilogue::kStore ? part.out : args.target) + at;
#pragma unroll
  for (int r = 0; r < kSegmentRows; ++r) {
    if (r >= n_rows) break;
    float value = values[r];
    if (args.epilogue == Epilogue::kAdd) value += __ldcg(to);
    if (args.epilogue == Epilogue::kSwiGlu) value = gated(value, ups[r]);
    __stcg(to, value);
    to += part.features;
  }
}

}  // namespace maestrale::device

extern "C" __global__ void __launch_bounds__(maestrale::cuda::kDownThreads, 2)
    low_rank_down(const __grid_constant__ maestrale::cuda::LowRankArgs args, float eps) {
  maestrale::device::low_rank_down(args, eps);
}
extern "C" __global__ void __launch_bounds__(maestrale::cuda::kUpThreads, 4)
    low_rank_up(const __grid_constant__ maestrale::cuda::LowRankArgs args) {
  maestrale::device::low_rank_up(args);
}
