// SPDX-License-Identifier: Apache-2.0
// matmul_tile_<type>: products of many rows of activations on tensor cores, for prefill.
// Grid (tiles of 64 rows, blocks of 8 stripes), block 256: a warp takes a stripe, that is 16 outputs of 64
// rows; weights go from memory to registers, activations through two buffers of shared memory. That is what
// a stream does:
//
//   begin()               starts to fetch the first columns
//   multiply(unit, u, ..) f += unit number u of the stripe times the activations, as units_times_groups().
//                         Of the next ones the first are under way then. For all threads of the block
#pragma once

#include <type_traits>

#include "finish.cuh"
#include "tile_halves.cuh"
#include "tile_records.cuh"

namespace maestrale::device {

template <class Tiled>
__device__ void matmul_tile(const MatmulArgs& args) {
  constexpr int kGroups = kTileRows / 8;
  using Stream = std::conditional_t<kIsHalf<Tiled>, HalfStream<Tiled>, RecordStream<Tiled>>;
  __shared__ typename Stream::Shared shared;
  const Work work = find_work(args, blockIdx.y, kTileStripes);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, first_row = kTileRows * blockIdx.x;
  const int stripes = (work.features + 15) / 16, groups = min((args.rows - first_row + 7) / 8, kGroups);
  const int stripe = min(work.stripe + warp, stripes - 1);  // one too many repeats the last
  const int products = args.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  Stream stream(shared, args, first_row);
  for (int m = 0; m < products; ++m) {
    const Byte* unit = (m == 0 ? work.weight : work.second) + (long long)stripe * args.units * Tiled::kBytes;
    if (m > 0) __syncthreads();
    stream.begin();
    float f[1][kGroups][4] = {}, sum[kGroups][4] = {};
    int ends = 1;  // segment that ends next
    for (int u = 0; u < args.units; ++u, unit += Tiled::kBytes) {
      for (; segment(ends, args.units) <= u; ++ends)
#pragma unroll
        for (int i = 0; i < 4 * kGroups; ++i) {
          sum[i >> 2][i & 3] += f[0][i >> 2][i & 3];
          f[0][i >> 2][i & 3] = 0;
        }
      stream.multiply(unit, u, groups, lane, f);
    }
#pragma unroll
    for (int i = 0; i < 4 * kGroups; ++i) sum[i >> 2][i & 3] += f[0][i >> 2][i & 3];
    if (work.stripe + warp < stripes)
#pragma unroll
      for (int i = 0; i < 4 * kGroups; ++i)
        store(args, work, m, first_row + 8 * (i >> 2) + 2 * (lane & 3) + (i & 1),
              16 * stripe + (lane >> 2) + 8 * (i >> 1 & 1), sum[i >> 2][i & 3]);
  }
  finish<Tiled>(args, work, kTileStripes, blockIdx.x, first_row, min(kTileRows, args.rows - first_row));
}

}  // namespace maestrale::device

#define MAESTRALE_MATMUL_TILE(Tiled, Stored, name)                                   \
  extern "C" __global__ void __launch_bounds__(256, 1)                               \
      matmul_tile_##name(const __grid_constant__ maestrale::cuda::MatmulArgs args) { \
    maestrale::device::matmul_tile<maestrale::device::Tiled>(args);                  \
  }
MAESTRALE_FOR_TILES(MAESTRALE_MATMUL_TILE)
MAESTRALE_FOR_HALVES(MAESTRALE_MATMUL_TILE)
