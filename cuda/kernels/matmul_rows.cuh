// SPDX-License-Identifier: Apache-2.0
// matmul_few_<type>, matmul_many_<type>, matmul_most_<type>: products of up to 8, 32 or 64 rows of
// activations on tensor cores, for batches of decoding sequences: weights are read once, activations come
// from the cache. Grid (stripes, with matmul_most pairs of stripes), block 256: a warp takes one segment of
// the inputs of 16 or 32 outputs of all rows; the pair halves what 64 rows of activations ask of the cache.
// Of F16 and BF16 also one row, and up to 64 as matmul_many: grid (stripes, tiles of 32 rows).
#pragma once

#include "dot.cuh"
#include "finish.cuh"
#include "halves.cuh"

namespace maestrale::device {

template <class Tiled, int kGroups, int kStripes = 1>
__device__ void matmul_rows(const MatmulArgs& args) {
  // [segment][row][output]. A stride of 20 puts what a fragment's lanes write, and what a warp reads below,
  // on different banks.
  constexpr int kStride = 20;
  __shared__ float partial[kSegments][8 * kGroups * kStride];
  const Work work = find_work(args, blockIdx.x, kStripes);
  const int first_row = kIsHalf<Tiled> ? 8 * kGroups * blockIdx.y : 0, rows_left = args.rows - first_row;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, groups = (rows_left + 7) / 8;
  const int begin = segment(warp, args.units), end = segment(warp + 1, args.units);
  const int products = args.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  const int output = threadIdx.x & 15, row = (threadIdx.x >> 5 & 3) + (threadIdx.x >> 2 & 4);
  for (int m = 0; m < products; ++m) {
    const Byte* units[kStripes];
#pragma unroll
    for (int p = 0; p < kStripes; ++p) {
      // One too many repeats the first.
      const int stripe = work.stripe + (16 * (work.stripe + p) < work.features ? p : 0);
      units[p] =
          (m == 0 ? work.weight : work.second) + ((long long)stripe * args.units + begin) * Tiled::kBytes;
    }
    const auto next_units = [&] {
#pragma unroll
      for (int p = 0; p < kStripes; ++p) units[p] += Tiled::kBytes;
    };
    float f[kStripes][kGroups][4] = {};
    if constexpr (kIsHalf<Tiled>) {
      const Byte* records = args.records + ((long long)first_row * args.units + begin) * kHalfRecordBytes;
      HalfRows<kGroups> rows(records, rows_left, args.units, lane);
      for (int u = begin; u < end; ++u, next_units(), rows.records += kHalfRecordBytes) {
        float sums[kGroups][4] = {};
        multiply_halves<Tiled, kUnitCols / 32>(units[0], 0, rows, groups, lane, sums);
        scale_sums<Tiled>(units[0], rows, groups, lane, sums, f[0]);
      }
    } else {
      constexpr int kUnitBytes = kRecords<Tiled> * kRecordBytes;
      GlobalRows<kGroups, kRecords<Tiled>> rows(args.records + begin * kUnitBytes, args.rows, args.units,
                                                lane);
      for (int u = begin; u < end; ++u, next_units(), rows.records += kUnitBytes)
        units_times_groups<Tiled>(units, rows, groups, lane, f);
    }
#pragma unroll
    for (int p = 0; p < kStripes; ++p) {
      if (m + p > 0) __syncthreads();
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          partial[warp][(8 * g + 2 * (lane & 3) + (i & 1)) * kStride + (lane >> 2) + 8 * (i >> 1)] =
              f[p][g][i];
      __syncthreads();
      for (int group = threadIdx.x >> 7; group < min(groups, kGroups); group += 2) {
        float sum = 0;
        for (int s = 0; s < kSegments; ++s) sum += partial[s][(8 * group + row) * kStride + output];
        store(args, work, m, first_row + 8 * group + row, 16 * (work.stripe + p) + output, sum);
      }
    }
  }
  finish<Tiled>(args, work, kStripes, kIsHalf<Tiled> ? blockIdx.y : 0, first_row,
                kIsHalf<Tiled> ? min(rows_left, 8 * kGroups) : args.rows);
}

}  // namespace maestrale::device

#define MAESTRALE_MATMUL_ROWS(Tiled, Stored, name)                                                  \
  extern "C" __global__ void __launch_bounds__(256, 2)                                              \
      matmul_few_##name(const __grid_constant__ maestrale::cuda::MatmulArgs args) {                 \
    maestrale::device::matmul_rows<maestrale::device::Tiled, maestrale::cuda::kFewRows / 8>(args);  \
  }                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256, 2)                                              \
      matmul_many_##name(const __grid_constant__ maestrale::cuda::MatmulArgs args) {                \
    maestrale::device::matmul_rows<maestrale::device::Tiled, maestrale::cuda::kManyRows / 8>(args); \
  }
#define MAESTRALE_MATMUL_MOST(Tiled, Stored, name)                                           \
  extern "C" __global__ void __launch_bounds__(256, 1)                                       \
      matmul_most_##name(const __grid_constant__ maestrale::cuda::MatmulArgs args) {         \
    maestrale::device::matmul_rows<maestrale::device::Tiled, maestrale::cuda::kMostRows / 8, \
                                   maestrale::cuda::kMostStripes>(args);                     \
  }
MAESTRALE_FOR_TILES(MAESTRALE_MATMUL_ROWS)
MAESTRALE_FOR_TILES(MAESTRALE_MATMUL_MOST)
MAESTRALE_FOR_HALVES(MAESTRALE_MATMUL_ROWS)
