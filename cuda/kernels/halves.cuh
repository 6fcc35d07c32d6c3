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

// sums[p][g] += columns 32 from .., kSteps times 32, of a unit of stripe p times those of the rows of group
// g. The order in which a sum gets its products is the same for every kernel.
template <class Tiled, int kSteps, int kStripes, int kGroups, class Rows>
__device__ inline void multiply_halves(const Byte* const (&units)[kStripes], int from, const Rows& rows,
                                       int groups, int lane, float (&sums)[kStripes][kGroups][4]) {
#pragma unroll(kStripes > 1 ? 1 : kSteps)  // with several stripes there are no registers for two steps
  for (int j = 0; j < kSteps; ++j) {
    unsigned first[kStripes][4], second[kStripes][4];
#pragma unroll
    for (int p = 0; p < kStripes; ++p) {
      const Byte* weights = units[p] + Tiled::kHalves + 16 * lane + 1024 * (from + j);
      const uint4 w = load16(weights), v = load16(weights + 512);
      first[p][0] = w.x, first[p][1] = v.x, first[p][2] = w.y, first[p][3] = v.y;
      second[p][0] = w.z, second[p][1] = v.z, second[p][2] = w.w, second[p][3] = v.w;
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (kGroups > 1 && g >= groups) break;
      const uint4 upper = rows.upper(g, j), lower = rows.lower(g, j);
#pragma unroll
      for (int p = 0; p < kStripes; ++p) {
        mma(sums[p][g], first[p], upper.x, upper.y);
        mma(sums[p][g], second[p], upper.z, upper.w);
        mma(sums[p][g], first[p], lower.x, lower.y);
        mma(sums[p][g], second[p], lower.z, lower.w);
      }
    }
  }
}
// f[p][g] += the sums of a unit, with the scales of both sides.
template <class Tiled, int kStripes, int kGroups, class Rows>
__device__ inline void scale_sums(const Byte* const (&units)[kStripes], const Rows& rows, int groups,
                                  int lane, const float (&sums)[kStripes][kGroups][4],
                                  float (&f)[kStripes][kGroups][4]) {
  float scales[kStripes][2];
#pragma unroll
  for (int p = 0; p < kStripes; ++p)
#pragma unroll
    for (int h = 0; h < 2; ++h) scales[p][h] = Tiled::scale(units[p], (lane >> 2) + 8 * h);
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    if (kGroups > 1 && g >= groups) break;
    const float d[2] = {rows.scale(g, 0), rows.scale(g, 1)};
#pragma unroll
    for (int p = 0; p < kStripes; ++p)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        f[p][g][i] = fmaf(sums[p][g][i], __fmul_rn(scales[p][i >> 1], d[i & 1]), f[p][g][i]);
  }
}

}  // namespace maestrale::device

// Expands what(Tiled, Format as stored, suffix of the kernel's name).
#define MAESTRALE_FOR_HALVES(what) what(TiledF16, F16, f16) what(TiledBF16, BF16, bf16)
