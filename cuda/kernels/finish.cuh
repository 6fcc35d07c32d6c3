// SPDX-License-Identifier: Apache-2.0
// The end of a product's block: what becomes of outputs beyond their place in memory.
#pragma once

#include "finish_heads.cuh"
#include "quantize_outputs.cuh"

namespace maestrale::device {

// For all threads of a block that has stored `stripes` stripes from work.stripe on, of `rows` rows from
// first_row on, in tile row_tile.
template <class Tiled>
__device__ inline void finish(const MatmulArgs& args, const Work& work, int stripes, int row_tile,
                              int first_row, int rows) {
  if (args.epilogue <= Epilogue::kAdd) return;
  if (args.epilogue == Epilogue::kSwiGlu)
    quantize_outputs<Tiled>(args, work, stripes, row_tile, first_row, rows);
  else
    finish_heads(args, work, stripes, row_tile, first_row, rows);
}

}  // namespace maestrale::device
