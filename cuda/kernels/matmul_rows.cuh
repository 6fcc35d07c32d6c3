// SPDX-License-Identifier: Apache-2.0
// matmul_few_<type>, matmul_many_<type>: products of up to 8 or 32 rows of activations on tensor cores, for
// batches of decoding sequences: weights are read once, activations come from the cache.
// Grid (stripes), block 256: a warp takes one segment of the inputs of 16 outputs of all rows. Of F16 and
// BF16 also one row and more than 32: grid (stripes, tiles of rows).
#pragma once

#include "dot.cuh"
#include "finish.cuh"
#include "halves.cuh"

namespace maestrale::device {

template <class Tiled, int kGroups>
__device__ void matmul_rows(const MatmulArgs& args) {
  // [segment][row][output]. A stride of 20 puts what a fragment's lanes write, and what a warp reads below,
  // on different banks.
  constexpr int kStride = 20;
  __shared__ float partial[kSegments][8 * kGroups * kStride];
  const Work work = find_work(args, blockIdx.x, 1);
  const int first_row = kIsHalf<Tiled> ? 8 * kGroups * blockIdx.y : 0, rows_left = args.rows - first_row;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, groups = (rows_left + 7) / 8;
  const int begin = segment(warp, args.units), end = segment(warp + 1, args.units);
  const int products = args.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  const int output = threadIdx.x & 15, row = (threadIdx.x >> 5 & 3) + (threadIdx.x >> 2 & 4);
  for (int m = 0; m < products; ++m) {
    const Byte* unit =
        (m == 0 ? work.weight : work.second) + ((long long)work.stripe * args.units + begin) * Tiled::kBytes;
    float f[kGroups][4] = {};
    if constexpr (kIsHalf<Tiled>) {
      const Byte* records = args.records + ((long long)first_row * args.units + begin) * kHalfRecordBytes;
      HalfRows<kGroups> rows(records, rows_left, args.units, lane);
      for (int u = begin; u < end; ++u, unit += Tiled::kBytes, rows.records += kHalfRecordBytes)
        unit_times_halves<Tiled, kGroups>(unit, rows, groups, lane, f);
    } else {
      constexpr int kUnitBytes = kRecords<Tiled> * kRecordBytes;
      GlobalRows<kGroups, kRecords<Tiled>> rows(args.records + begin * kUnitBytes, args.rows, args.units,
                                                lane);
      for (int u = begin; u < end; ++u, unit += Tiled::kBytes, rows.records += kUnitBytes)
        unit_times_groups<Tiled, kGroups>(unit, rows, groups, lane, f);
    }
    if (m > 0) __syncthreads();
#pragma unroll
    for (int g = 0; g < kGroups; ++g)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        partial[warp][(8 * g + 2 * (lane & 3) + (i & 1)) * kStride + (lane >> 2) + 8 * (i >> 1)] = f[g][i];
    __syncthreads();
    for (int group = threadIdx.x >> 7; group < min(groups, kGroups); group += 2) {
      float sum = 0;
      for (int s = 0; s < kSegments; ++s) sum += partial[s][(8 * group + row) * kStride + output];
      store(args, work, m, first_row + 8 * group + row, 16 * work.stripe + output, sum);
    }
  }
  finish<Tiled>(args, work, 1, kIsHalf<Tiled> ? blockIdx.y : 0, first_row,
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
MAESTRALE_FOR_TILES(MAESTRALE_MATMUL_ROWS)
MAESTRALE_FOR_HALVES(MAESTRALE_MATMUL_ROWS)
