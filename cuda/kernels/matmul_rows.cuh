// SPDX-License-Identifier: Apache-2.0
// matmul_few_<type>, matmul_many_<type>, matmul_most_<type>: products of up to 8, 32 or 64 rows of
// activations on tensor cores, for batches of decoding sequences: weights are read once, activations come
// from the cache. Grid (stripes, fours of them with matmul_few, pairs with matmul_most), block 256: a warp
// takes one segment of the inputs of 16, 32 or, of few rows, 64 outputs of all rows, which divides what
// activations ask of the cache. Of F16 and BF16 also one row, and up to 64 as matmul_many: grid (stripes,
// tiles of 32 rows).
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
  // Stripes that are multiplied together; of few rows and integers one after the other, for the registers.
  constexpr int kAtOnce = kGroups == 1 && !kIsHalf<Tiled> ? 1 : kStripes;
  __shared__ float partial[kSegments][8 * kGroups * kStride];
  const Work work = find_work(args, blockIdx.x, kStripes);
  const int first_row = kIsHalf<Tiled> ? 8 * kGroups * blockIdx.y : 0, rows_left = args.rows - first_row;
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, groups = (rows_left + 7) / 8;
  const int begin = segment(warp, args.units), end = segment(warp + 1, args.units);
  const int products = args.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  const unsigned stripe_bytes = unsigned(args.units) * Tiled::kBytes;
  const int stripes = min(kStripes, (work.features + 15) / 16 - work.stripe);
  const int output = threadIdx.x & 15, row = (threadIdx.x >> 5 & 3) + (threadIdx.x >> 2 & 4);
  for (int m = 0; m < products; ++m) {
    const Byte* unit =
        (m == 0 ? work.weight : work.second) + ((long long)work.stripe * args.units + begin) * Tiled::kBytes;
    // The same unit of every stripe. One too many repeats the first.
    const auto units = [&] {
      return for_stripes<const Byte*>([&](int p) { return unit + (p < stripes ? p : 0) * stripe_bytes; },
                                      std::make_integer_sequence<int, kStripes>());
    };
    float f[kStripes / kAtOnce][kAtOnce][kGroups][4] = {};
    if constexpr (kIsHalf<Tiled>) {
      const Byte* records = args.records + ((long long)first_row * args.units + begin) * kHalfRecordBytes;
      HalfRows<kGroups> rows(records, rows_left, args.units, lane);
      for (int u = begin; u < end; ++u, unit += Tiled::kBytes, rows.records += kHalfRecordBytes) {
        float sums[kStripes][kGroups][4] = {};
        multiply_halves<Tiled, kUnitCols / 32>(units().of, 0, rows, groups, lane, sums);
        scale_sums<Tiled>(units().of, rows, groups, lane, sums, f[0]);
      }
    } else {
      constexpr int kUnitBytes = kRecords<Tiled> * kRecordBytes;
      GlobalRows<kGroups, kRecords<Tiled>> rows(args.records + begin * kUnitBytes, args.rows, args.units,
                                                lane);
      const Byte* scales = args.records - (begin + 1) * kScalesBytes;
      for (int u = begin; u < end; ++u, unit += Tiled::kBytes, scales -= kScalesBytes) {
        if constexpr (kGroups == 1) {
          rows.records = args.records + u * kUnitBytes;
          __shared__ Tails tails[kSegments];
          const HeldRows<Tiled> held(rows, scales, tails[warp], lane);
#pragma unroll
          for (int p = 0; p < kStripes; ++p) {
            if (p >= stripes) break;  // and a branch that keeps ptxas from fetching all stripes at once
            units_times_groups<Tiled>({unit + p * stripe_bytes}, held, groups, lane, f[p]);
          }
        } else {
          units_times_groups<Tiled>(units().of, rows, groups, lane, f[0]);
          rows.records += kUnitBytes;
        }
      }
    }
    int block = blockIdx.x;
    if constexpr (kGroups == 1) asm volatile("" : "+r"(block));  // looked up anew, for the registers
    const Work work = find_work(args, block, kStripes);
#pragma unroll
    for (int p = 0; p < kStripes; ++p) {
      if (m + p > 0) __syncthreads();
#pragma unroll
      for (int g = 0; g < kGroups; ++g)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          partial[warp][(8 * g + 2 * (lane & 3) + (i & 1)) * kStride + (lane >> 2) + 8 * (i >> 1)] =
              f[p / kAtOnce][p % kAtOnce][g][i];
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
    maestrale::device::matmul_rows<maestrale::device::Tiled, maestrale::cuda::kFewRows / 8,         \
                                   maestrale::cuda::kFewStripes>(args);                             \
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
