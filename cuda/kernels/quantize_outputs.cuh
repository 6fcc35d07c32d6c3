// SPDX-License-Identifier: Apache-2.0
// Quantising what a product has written, in the same launch: the block that is the last to finish a unit of
// 256 outputs does it, so the next product finds its records.
#pragma once

#include "epilogue.cuh"
#include "last_block.cuh"
#include "quantize.cuh"

namespace maestrale::device {

// For all threads of a block that has stored `stripes` stripes from work.stripe on, of rows first_row .. of
// tile row_tile. The form is the one that weights like Tiled multiply with.
template <class Tiled>
__device__ inline void quantize_outputs(const MatmulArgs& args, const Work& work, int stripes, int row_tile,
                                        int first_row, int rows) {
  constexpr int kUnitStripes = kUnitCols / kStripeRows;
  const int unit = work.stripe / kUnitStripes, units = (work.features + kUnitCols - 1) / kUnitCols;
  const int all_stripes = (work.features + 15) / 16;
  if (!is_last_block(args.arrivals + row_tile * units + unit, min(stripes, all_stripes - work.stripe),
                     min(kUnitStripes, all_stripes - kUnitStripes * unit)))
    return;
  const int lane = threadIdx.x & 31, at = first_column(unit, lane);
  for (int r = first_row + (threadIdx.x >> 5); r < first_row + rows; r += 8) {
    const float* row = work.out + (long long)r * work.features;
    float4 v[2] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h)
      if (at + 16 * h < work.features) v[h] = __ldcg(reinterpret_cast<const float4*>(row + at + 16 * h));
    constexpr Form kForm = requires { Tiled::kSub; } ? Form::kQ256
                           : kIsHalf<Tiled>          ? Form::kHalves
                           : kTwoBytes<Tiled>        ? Form::kQ32Wide
                                                     : Form::kQ32;
    quantize_unit<kForm>(v, args.next_records, r, units, unit, lane);
  }
}

}  // namespace maestrale::device
