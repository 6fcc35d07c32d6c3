// SPDX-License-Identifier: Apache-2.0
// matmul_row_<type>: products of one row of activations with dp4a; what decoding one sequence reads memory
// with. Grid (stripes), block 256: a warp takes one segment of the inputs of 16 outputs.
#pragma once

#include "dot.cuh"
#include "finish.cuh"

namespace maestrale::device {

template <class Tiled>
__device__ void matmul_row(const MatmulArgs& args) {
  __shared__ float partial[kSegments][16];
  const Work work = find_work(args, blockIdx.x, 1);
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int begin = segment(warp, args.units), end = segment(warp + 1, args.units);
  const int products = args.epilogue == Epilogue::kSwiGlu ? 2 : 1;
  for (int m = 0; m < products; ++m) {
    const Byte* unit =
        (m == 0 ? work.weight : work.second) + ((long long)work.stripe * args.units + begin) * Tiled::kBytes;
    constexpr int kUnitBytes = kRecords<Tiled> * kRecordBytes;
    const Byte* record = args.records + begin * kUnitBytes;
    float f[2] = {};
    for (int u = begin; u < end; ++u, unit += Tiled::kBytes, record += kUnitBytes)
      unit_times_row<Tiled>(unit, record, lane, f);
    if (m > 0) __syncthreads();
    if ((lane & 3) == 0) {
      partial[warp][lane >> 2] = f[0];
      partial[warp][8 + (lane >> 2)] = f[1];
    }
    __syncthreads();
    if (threadIdx.x < 16) {
      float sum = 0;
      for (int s = 0; s < kSegments; ++s) sum += partial[s][threadIdx.x];
      store(args, work, m, 0, 16 * work.stripe + threadIdx.x, sum);
    }
  }
  finish<Tiled>(args, work, 1, 0, 0, 1);
}

}  // namespace maestrale::device

#define MAESTRALE_MATMUL_ROW(Tiled, Stored, name)                                   \
  extern "C" __global__ void __launch_bounds__(256, 2)                              \
      matmul_row_##name(const __grid_constant__ maestrale::cuda::MatmulArgs args) { \
    maestrale::device::matmul_row<maestrale::device::Tiled>(args);                  \
  }
MAESTRALE_FOR_TILES(MAESTRALE_MATMUL_ROW)
