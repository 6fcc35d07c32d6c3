// SPDX-License-Identifier: Apache-2.0
// repack_f16, repack_bf16: stored rows to the stripes of tile_layout.h, at load. Grid (units, stripes), block
// 128: a warp takes 64 columns. Behind the last row it comes again, behind the last column come zeros.
#pragma once

#include "formats.cuh"
#include "halves.cuh"

namespace maestrale::device {

template <class Tiled, class Stored>
__device__ void repack_halves(const Byte* rows, Byte* out, int n_rows, int cols, long long row_bytes) {
  __shared__ unsigned largest[16];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  Byte* unit = out + ((long long)blockIdx.y * gridDim.x + blockIdx.x) * Tiled::kBytes;
  // Of step j and half h the lane has 8 columns of row lane / 4 + 8 h.
  const auto value = [&](int j, int h, int i) {
    const int row = min(16 * int(blockIdx.y) + (lane >> 2) + 8 * h, n_rows - 1);
    const int col = kUnitCols * blockIdx.x + 32 * j + 8 * (lane & 3) + i;
    return col < cols ? Stored::at(rows + row * row_bytes, col >> 5, col & 31) : 0.0f;
  };
  float inverse[2] = {1, 1};
  if constexpr (requires { Tiled::kScales; }) {
    if (threadIdx.x < 16) largest[threadIdx.x] = 0;
    __syncthreads();
    for (int h = 0; h < 2; ++h) {
      unsigned most = 0;
      for (int j = 2 * warp; j < 2 * warp + 2; ++j)
        for (int i = 0; i < 8; ++i) most = max(most, __float_as_uint(fabsf(value(j, h, i))));
      atomicMax(&largest[(lane >> 2) + 8 * h], most);
    }
    __syncthreads();
    for (int h = 0; h < 2; ++h) inverse[h] = power_of_two(14 - scale_exponent(largest[(lane >> 2) + 8 * h]));
    if (threadIdx.x < 16)
      reinterpret_cast<float*>(unit + Tiled::kScales)[threadIdx.x] =
          power_of_two(scale_exponent(largest[threadIdx.x]) - 14);
  }
  for (int j = 2 * warp; j < 2 * warp + 2; ++j)
    for (int h = 0; h < 2; ++h) {
      unsigned words[4];
      for (int k = 0; k < 4; ++k)
        words[k] = pack_halves(value(j, h, 2 * k) * inverse[h], value(j, h, 2 * k + 1) * inverse[h]);
      *reinterpret_cast<uint4*>(unit + Tiled::kHalves + 1024 * j + 512 * h + 16 * lane) = {
          words[0], words[1], words[2], words[3]};
    }
}

}  // namespace maestrale::device

#define MAESTRALE_REPACK_HALVES(Tiled, Stored, name)                                                         \
  extern "C" __global__ void __launch_bounds__(128) repack_##name(                                           \
      const unsigned char* rows, unsigned char* out, int n_rows, int cols, long long row_bytes) {            \
    maestrale::device::repack_halves<maestrale::device::Tiled, maestrale::device::Stored>(rows, out, n_rows, \
                                                                                          cols, row_bytes);  \
  }
MAESTRALE_FOR_HALVES(MAESTRALE_REPACK_HALVES)
