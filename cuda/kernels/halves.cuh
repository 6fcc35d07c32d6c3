// SPDX-License-Identifier: Apache-2.0
// Units of weights in halves, F16 and BF16, times activations in two halves each, on tensor cores with sums
// in binary32: for one row as for many, so that the bits of a row do not depend on the batch.
//
//   f = fma(sum of the unit's products, d_w * d_x, f), a unit after the other; the scales are powers of two
#pragma once

#include "cuda/tile_layout.h"
#include "tensor_core.cuh"
#include "tiles.cuh"

namespace maestrale::device {

template <class Tiled>
constexpr bool kIsHalf = requires { Tiled::kHalves; };

struct TiledF16 : TileF16 {
  static __device__ float scale(const Byte*, int) { return 1.0f; }
};
struct TiledBF16 : TileBF16 {
  static __device__ float scale(const Byte* unit, int row) {
    return __ldg(reinterpret_cast<const float*>(unit + kScales) + row);
  }
};

// 2^exponent
__device__ inline float power_of_two(int exponent) { return __uint_as_float(unsigned(exponent + 127) << 23); }
// Of the greatest absolute value, by its bits; bounded so that scales and their inverses are numbers.
__device__ inline int scale_exponent(unsigned largest) { return max(int(largest >> 23) - 127, -100); }

// Where activations come from: upper(g, j) and lower(g, j), 8 columns from 32 j + 8 (l % 4) on of row l / 4
// of group g; scale(g, i) of row 2 (l % 4) + i.
template <int kGroups>
struct HalfRows {
  const Byte* records;
  unsigned row[kGroups], column[kGroups][2];  // offsets
  // Rows behind the last stand for it: their results are thrown away.
  __device__ HalfRows(const Byte* records_of_unit, int rows, int units, int lane) : records(records_of_unit) {
    const unsigned stride = unsigned(units) * kHalfRecordBytes;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      row[g] = min(8 * g + (lane >> 2), rows - 1) * stride + 16 * (lane & 3);
#pragma unroll
      for (int i = 0; i < 2; ++i)
        column[g][i] = min(8 * g + 2 * (lane & 3) + i, rows - 1) * stride + kHalfScale;
    }
  }
  __device__ uint4 upper(int g, int j) const { return load16(records + row[g] + 64 * j); }
  __device__ uint4 lower(int g, int j) const { return load16(records + row[g] + (kLowerHalves + 64 * j)); }
  __device__ float scale(int g, int i) const {
    return __ldg(reinterpret_cast<const float*>(records + column[g][i]));
  }
};

// sums[g] += columns 32 from .., kSteps times 32, of a unit times those of the rows of group g. The order
// in which a sum gets its products is the same for every kernel.
template <class Tiled, int kSteps, int kGroups, class Rows>
__device__ inline void multiply_halves(const Byte* unit, int from, const Rows& rows, int groups, int lane,
                                       float (&sums)[kGroups][4]) {
  const Byte* weights = unit + Tiled::kHalves + 16 * lane + 1024 * from;
#pragma unroll
  for (int j = 0; j < kSteps; ++j) {
    const uint4 w = load16(weights + 1024 * j), v = load16(weights + 1024 * j + 512);
    const unsigned first[4] = {w.x, v.x, w.y, v.y}, second[4] = {w.z, v.z, w.w, v.w};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (kGroups > 1 && g >= groups) break;
      const uint4 upper = rows.upper(g, j), lower = rows.lower(g, j);
      mma(sums[g], first, upper.x, upper.y);
      mma(sums[g], second, upper.z, upper.w);
      mma(sums[g], first, lower.x, lower.y);
      mma(sums[g], second, lower.z, lower.w);
    }
  }
}
// f[g] += the sums of a unit, with the scales of both sides.
template <class Tiled, int kGroups, class Rows>
__device__ inline void scale_sums(const Byte* unit, const Rows& rows, int groups, int lane,
                                  const float (&sums)[kGroups][4], float (&f)[kGroups][4]) {
  const float scales[2] = {Tiled::scale(unit, lane >> 2), Tiled::scale(unit, (lane >> 2) + 8)};
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    if (kGroups > 1 && g >= groups) break;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      f[g][i] = fmaf(sums[g][i], __fmul_rn(scales[i >> 1], rows.scale(g, i & 1)), f[g][i]);
  }
}

}  // namespace maestrale::device

// Expands what(Tiled, Format as stored, suffix of the kernel's name).
#define MAESTRALE_FOR_HALVES(what) what(TiledF16, F16, f16) what(TiledBF16, BF16, bf16)
