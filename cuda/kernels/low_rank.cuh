// SPDX-License-Identifier: Apache-2.0
// What LoRA adapters add to products, for rows of any adapters in one launch:
//
//   low_rank_down   down[r][p] = scaling * (x[r] * lora_a^T)   of product p; x may stand for its RMSNorm.
//                   Grid (kDownBlocks a product, segments), block kDownThreads
//   low_rank_up     out[r] = factor .* (out[r] + down[r][p] * lora_b^T).
//                   Grid (ceil(features / kUpThreads) a product, segments), block kUpThreads: a thread has
//                   one feature
//
// in binary32. Every sum of a row has an order of its own, whoever shares the segment.
#pragma once

#include <cstddef>

#include "cuda/low_rank_args.h"
#include "warp.cuh"

namespace maestrale::device {

using namespace cuda;

constexpr int kUpRanks = 64;  // columns of lora_b for which a block keeps `down` in shared memory

// For what no launch of the step writes.
template <class T>
__device__ inline T read(GlobalAddress at) {
  return __ldg(reinterpret_cast<const T*>(at));
}

struct Task {
  Delta delta;  // lora_a is 0 where there is nothing to do
  LowRankArgs::Part part;
  int product;  // which part that is
  int block;    // of the part
};

// The work of this block for a segment, where blocks(part) blocks take a product.
template <class Blocks>
__device__ inline Task find_task(const LowRankArgs& args, const Segment& segment, Blocks blocks) {
  Task task = {{}, args.part[0], 0, int(blockIdx.x)};
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int before = blocks(args.part[p]);
    if (task.block < before) break;
    task.block -= before;
    task.part = args.part[p + 1];
    task.product = p + 1;
  }
  const GlobalAddress at = segment.deltas + task.part.number * sizeof(Delta);
  task.delta.lora_a = segment.n_rows > 0 ? read<GlobalAddress>(at + offsetof(Delta, lora_a)) : 0;
  if (task.delta.lora_a == 0) return task;
  task.delta.lora_b = read<GlobalAddress>(at + offsetof(Delta, lora_b));
  task.delta.factor = read<GlobalAddress>(at + offsetof(Delta, factor));
  task.delta.scaling = read<float>(at + offsetof(Delta, scaling));
  task.delta.rank = read<int>(at + offsetof(Delta, rank));
  task.delta.a_type = FactorType(read<int>(at + offsetof(Delta, a_type)));
  task.delta.b_type = FactorType(read<int>(at + offsetof(Delta, b_type)));
  return task;
}

// Values index .. index + 3 of a matrix; index is a multiple of 4.
template <FactorType type>
__device__ inline float4 factors_at(GlobalAddress matrix, long long index) {
  if constexpr (type == FactorType::kF32) return read<float4>(matrix + 4 * index);
  const uint2 bits = read<uint2>(matrix + 2 * index);
  if constexpr (type == FactorType::kF16)
    return {half_bits(bits.x & 0xffff), half_bits(bits.x >> 16), half_bits(bits.y & 0xffff),
            half_bits(bits.y >> 16)};
  return {__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000), __uint_as_float(bits.y << 16),
          __uint_as_float(bits.y & 0xffff0000)};
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
    float4 a[kDownRanks];
#pragma unroll
    for (int i = 0; i < kDownRanks; ++i)
      a[i] = first_rank + i < delta.rank
                 ? factors_at<type>(delta.lora_a, (long long)(first_rank + i) * args.cols + at)
                 : float4{};
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
  const Segment segment = args.segments[blockIdx.y];
  const auto [delta, part, product, block] =
      find_task(args, segment, [](const auto&) { return kDownBlocks; });
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

// sums[r] += down[r] * the ranks first .. first + n - 1, a multiple of 4, of the feature's row of lora_b.
template <FactorType type>
__device__ inline void sum_ranks(const Delta& delta, long long row, int first, int n, int n_rows,
                                 const float (&down)[kSegmentRows][kUpRanks], float (&sums)[kSegmentRows]) {
  for (int k = 0; k < n; k += 4) {
    const float4 b = factors_at<type>(delta.lora_b, row + first + k);
#pragma unroll
    for (int r = 0; r < kSegmentRows; ++r)
      if (r < n_rows) sums[r] = dot4(*reinterpret_cast<const float4*>(&down[r][k]), b, sums[r]);
  }
}

__device__ inline void low_rank_up(const LowRankArgs& args) {
  __shared__ __align__(16) float down[kSegmentRows][kUpRanks];
  const Segment segment = args.segments[blockIdx.y];
  const auto blocks = [](const LowRankArgs::Part& p) { return (p.features + kUpThreads - 1) / kUpThreads; };
  const auto [delta, part, product, block] = find_task(args, segment, blocks);
  if (delta.lora_a == 0) return;
  const int feature = kUpThreads * block + threadIdx.x, padded_rank = (delta.rank + 15) & ~15;
  const bool has_feature = feature < part.features;
  float sums[kSegmentRows] = {};
  for (int first = 0; first < padded_rank; first += kUpRanks) {
    const int n = min(kUpRanks, padded_rank - first);
    if (first > 0) __syncthreads();
    for (int i = threadIdx.x; i < segment.n_rows * n; i += kUpThreads) {
      const int r = i / n, k = i - r * n;
      const long long row = 3LL * (segment.first_row + r) + product;
      down[r][k] = __ldcg(reinterpret_cast<const float*>(segment.down) + row * segment.down_rank + first + k);
    }
    __syncthreads();
    if (!has_feature) continue;
    const long long row = (long long)feature * padded_rank;
    if (delta.b_type == FactorType::kF32)
      sum_ranks<FactorType::kF32>(delta, row, first, n, segment.n_rows, down, sums);
    else if (delta.b_type == FactorType::kF16)
      sum_ranks<FactorType::kF16>(delta, row, first, n, segment.n_rows, down, sums);
    else
      sum_ranks<FactorType::kBF16>(delta, row, first, n, segment.n_rows, down, sums);
  }
  if (!has_feature) return;
  const float factor = delta.factor != 0 ? read<float>(delta.factor + sizeof(float) * feature) : 1.0f;
#pragma unroll
  for (int r = 0; r < kSegmentRows; ++r) {
    if (r >= segment.n_rows) break;
    float* out = part.out + (long long)(segment.first_row + r) * part.features + feature;
    *out = (*out + sums[r]) * factor;
  }
}

}  // namespace maestrale::device

extern "C" __global__ void __launch_bounds__(maestrale::cuda::kDownThreads, 2)
    low_rank_down(const __grid_constant__ maestrale::cuda::LowRankArgs args, float eps) {
  maestrale::device::low_rank_down(args, eps);
}
extern "C" __global__ void __launch_bounds__(maestrale::cuda::kUpThreads)
    low_rank_up(const __grid_constant__ maestrale::cuda::LowRankArgs args) {
  maestrale::device::low_rank_up(args);
}
