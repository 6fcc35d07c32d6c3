// SPDX-License-Identifier: Apache-2.0
// embed_<type>: out[r] = table[tokens[r]].
// Grid (rows, ceil(chunks / 8)), block 256: a warp takes 32 columns of one row.
#pragma once

#include "formats.cuh"

namespace maestrale::device {

template <class Format>
__device__ void embed(const Byte* table, const int* tokens, float* out, int cols, long long row_bytes) {
  const int row = blockIdx.x, lane = threadIdx.x & 31, chunk = blockIdx.y * 8 + (threadIdx.x >> 5);
  const int at = 32 * chunk + lane;
  if (at < cols) out[(long long)row * cols + at] = Format::at(table + tokens[row] * row_bytes, chunk, lane);
}

}  // namespace maestrale::device

#define MAESTRALE_EMBED(Format, name)                                                             \
  extern "C" __global__ void __launch_bounds__(256) embed_##name(                                 \
      const unsigned char* table, const int* tokens, float* out, int cols, long long row_bytes) { \
    maestrale::device::embed<maestrale::device::Format>(table, tokens, out, cols, row_bytes);     \
  }
MAESTRALE_FOR_FORMATS(MAESTRALE_EMBED)
