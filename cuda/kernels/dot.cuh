// SPDX-License-Identifier: Apache-2.0
// The arithmetic of every product with quantised weights: one unit of 16 rows times activations, by dp4a for
// one row of activations and by mma for groups of eight. Both are exact in integers and round alike, and a
// row's result involves its own activations only, so the bits of a row depend neither on the kernel nor on
// the batch:
//
//   256 weights   S = sum_j scale[j] * sum_e code[e] * q[e],  T = sum_j min[j] * sum_e q[e]
//                 f = fma(fma(-T, dmin_w, S * d_w), d_x, f), a unit after the other
//   32 weights    f = fma(sum_e code[e] * q[e], d_w * d_x, f), eight times, then as often where there are
//   minima
//                 f = fma(sum_e q[e], m_w * d_x, f)
//
// A block of 64 weights is two of 32 with the same d_w = absmax / kLargest (four_bit.cuh); the sum of 13
// times 14 bits is exact too, until it is rounded to binary32.
//
// The units of a row are cut into kSegments runs; the sums of the runs are added in order (segment()).
#pragma once

#include <utility>

#include "tiles.cuh"

namespace maestrale::device {

template <class Tiled>
constexpr bool kTwoBytes = requires { typename Tiled::Table; };
// Of a unit of activations that such weights multiply with.
template <class Tiled>
constexpr int kRecords = kTwoBytes<Tiled> ? 2 : 1;

constexpr int kSegments = 8;
// The first unit of segment s of `units`.
__device__ inline int segment(int s, int units) { return s * units / kSegments; }

// Where activations come from: codes(g, t), the 16 bytes of the lane's row of group g for tile t (row l / 4),
// low_codes(g, t) of the unit's second record, tail(g, j, part), a part of the last record's tail of row
// 2 (l % 4) + j of the group, and scales(g, j, t), those of tile t in it.
template <int kGroups, int kUnitRecords>
struct GlobalRows {
  const Byte* records;
  unsigned row[kGroups],
      column[kGroups][2];  // offsets; 64 rows of a record every 256 columns are far below 4 GiB
  // Rows behind the last stand for it: their results are thrown away.
  __device__ GlobalRows(const Byte* records_of_unit, int rows, int units, int lane)
      : records(records_of_unit) {
    const unsigned stride = unsigned(units) * kUnitRecords * kRecordBytes;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      row[g] = min(8 * g + (lane >> 2), rows - 1) * stride + 16 * (lane & 3);
#pragma unroll
      for (int j = 0; j < 2; ++j)
        column[g][j] =
            min(8 * g + 2 * (lane & 3) + j, rows - 1) * stride + ((kUnitRecords - 1) * kRecordBytes + kTail);
    }
  }
  __device__ uint4 codes(int g, int t) const { return load16(records + row[g] + 64 * t); }
  __device__ uint4 low_codes(int g, int t) const {
    return load16(records + row[g] + (kRecordBytes + 64 * t));
  }
  __device__ uint4 own_tail() const {  // part l % 4 of row l / 4
    return load16(records + row[0] + ((kUnitRecords - 1) * kRecordBytes + kTail));
  }
  __device__ uint4 tail(int g, int j, int part) const { return load16(records + column[g][j] + 16 * part); }
  __device__ uint2 scales(int g, int j, int t) const { return load8(records + column[g][j] + 8 * t); }
  __device__ float scale(int g, int j) const {
    return __ldg(reinterpret_cast<const float*>(records + column[g][j] + 48));
  }
};

// Tails of eight rows, [part][row], on their way from lanes that fetch 16 bytes each, so that no sector is
// asked for twice, to those that multiply with them. Neither side finds two rows or parts on one bank.
using Tails = uint4[4][10];

// A unit of the activations of one group, fetched once into registers for several stripes.
template <class Tiled>
struct HeldRows {
  uint4 x[kTilesPerUnit], y[kTilesPerUnit], parts[2][3];
  float d[2];
  // `scales` is the unit's place before the records.
  __device__ HeldRows(const GlobalRows<1, kRecords<Tiled>>& rows, const Byte* scales, Tails& tails,
                      int lane) {
    // The scale is in the sector of part 2, too.
    constexpr bool kStaged = wants(0) || wants(2), kScaleInTail = kHasUnits && wants(2);
    const int own = lane & 3;
    uint4 tail;
    if (kStaged && (own < 3 ? wants(own) : kScaleInTail)) tail = rows.own_tail();
#pragma unroll
    for (int t = 0; t < kTilesPerUnit; ++t) {
      x[t] = rows.codes(0, t);
      if constexpr (kTwoBytes<Tiled>) y[t] = rows.low_codes(0, t);
    }
    if (kHasUnits && !kScaleInTail) {
      const float2 both = __ldg(reinterpret_cast<const float2*>(scales) + own);
      d[0] = both.x, d[1] = both.y;
    }
    if (kStaged) {
      __syncwarp();  // what was there before has been read
      tails[own][lane >> 2] = tail;
      __syncwarp();
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int row = 2 * own + j;
#pragma unroll
      for (int part = 0; part < 3; ++part)
        if (wants(part)) parts[j][part] = tails[part][row];
      if (kScaleInTail) d[j] = __uint_as_float(tails[3][row].x);
    }
  }
  static constexpr bool kHasUnits = requires { Tiled::kSub; };  // with a scale each
  // Whether this part of the tail is multiplied with: sums of 16 or 32 columns, or scales of 32.
  static __device__ constexpr bool wants(int part) {
    if constexpr (kHasUnits)
      return Tiled::kMinWords == 2 ? part == 2 : Tiled::kMinWords == 4 && part < 2;
    else
      return part < 2 || Tiled::kHasM;
  }
  __device__ uint4 codes(int, int t) const { return x[t]; }
  __device__ uint4 low_codes(int, int t) const { return y[t]; }
  __device__ uint4 tail(int, int j, int part) const { return parts[j][part]; }
  __device__ uint2 scales(int, int j, int t) const {
    const uint4 four = parts[j][t >> 1];
    return (t & 1) == 0 ? uint2{four.x, four.y} : uint2{four.z, four.w};
  }
  __device__ float scale(int, int j) const { return d[j]; }
};

__device__ inline int dot_mins(int sum, unsigned mins, unsigned first, unsigned second) {
  return __dp2a_hi(int(second), int(mins), __dp2a_lo(int(first), int(mins), sum));
}
// sum_j min[j] * sums[j], from the tail of a record
template <class Tiled, class Tail>
__device__ inline int minimum_sum(const unsigned (&mins)[Tiled::kMinWords], Tail&& tail) {
  int sum = 0;
  if constexpr (Tiled::kMinWords == 2) {
    const uint4 s = tail(2);
    sum = dot_mins(dot_mins(0, mins[0], s.x, s.y), mins[1], s.z, s.w);
  } else {
    const uint4 s = tail(0), r = tail(1);
    sum = dot_mins(dot_mins(0, mins[0], s.x, s.y), mins[1], s.z, s.w);
    sum = dot_mins(dot_mins(sum, mins[2], r.x, r.y), mins[3], r.z, r.w);
  }
  return sum;
}
__device__ inline float block_scale(const uint4& half_of_scales, int b) {
  const unsigned w[4] = {half_of_scales.x, half_of_scales.y, half_of_scales.z, half_of_scales.w};
  return __uint_as_float(w[b & 3]);
}
__device__ inline float block_sum(const uint4& sums, int b) {
  const unsigned w[4] = {sums.x, sums.y, sums.z, sums.w};
  return float(static_cast<short>(w[b >> 1] >> 16 * (b & 1)));
}

// Registers of a tile, and their products with 16 bytes of activations. Where codes take two bytes, so do
// those of activations: (64 * high + low) * (128 * x + y).
template <class Tiled>
struct TileCodes {
  Codes high, low;
  __device__ TileCodes(const Byte* unit, int lane, int t) {
    if constexpr (kTwoBytes<Tiled>)
      Tiled::codes(unit, lane, t, high, low);
    else
      Tiled::codes(unit, lane, t, high);
  }
  // Row half h and columns 32 s .. of the tile.
  __device__ int dot(int s, int h, const uint4& x, const uint4& y) const {
    const int x0 = int(s == 0 ? x.x : x.z), x1 = int(s == 0 ? x.y : x.w);
    const int sum = __dp4a(int(high[s][2 + h]), x1, __dp4a(int(high[s][h]), x0, 0));
    if constexpr (!kTwoBytes<Tiled>) return sum;
    const int y0 = int(s == 0 ? y.x : y.z), y1 = int(s == 0 ? y.y : y.w);
    const int rest = __dp4a(int(low[s][2 + h]), x1, __dp4a(int(low[s][h]), x0, 0));
    return 64 * __dp4a(int(high[s][2 + h]), y1, __dp4a(int(high[s][h]), y0, 128 * sum)) +
           __dp4a(int(low[s][2 + h]), y1, __dp4a(int(low[s][h]), y0, 128 * rest));
  }
  __device__ void multiply(int (&c)[4], int s, const uint4& x, const uint4& y) const {
    const unsigned x0 = s == 0 ? x.x : x.z, x1 = s == 0 ? x.y : x.w;
    mma_k32(c, high[s], x0, x1);
    if constexpr (kTwoBytes<Tiled>) {
      const unsigned y0 = s == 0 ? y.x : y.z, y1 = s == 0 ? y.y : y.w;
      int rest[4] = {};
      mma_k32(rest, low[s], x0, x1);
#pragma unroll
      for (int i = 0; i < 4; ++i) c[i] *= 128, rest[i] *= 128;
      mma_k32(c, high[s], y0, y1);
      mma_k32(rest, low[s], y0, y1);
#pragma unroll
      for (int i = 0; i < 4; ++i) c[i] = 64 * c[i] + rest[i];
    }
  }
};

// f[half] += rows l / 4 and l / 4 + 8 of the unit times one record of activations; all lanes of a quad get
// it.
template <class Tiled>
__device__ inline void unit_times_row(const Byte* unit, const Byte* record, int lane, float (&f)[2]) {
  const typename Tiled::Head head(unit, lane >> 2);
  const auto tail = [&](int part) {
    return load16(record + ((kRecords<Tiled> - 1) * kRecordBytes + kTail + 16 * part));
  };
  if constexpr (requires { Tiled::kSub; }) {
    int sums[2] = {};
#pragma unroll
    for (int t = 0; t < kTilesPerUnit; ++t) {
      Codes a;
      Tiled::codes(unit, lane, t, a);
      const uint4 x = load16(record + 64 * t + 16 * (lane & 3));
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int x0 = int(s == 0 ? x.x : x.z), x1 = int(s == 0 ? x.y : x.w);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (Tiled::kSub == 32) {
            sums[h] += head.scale(h, 2 * t + s) * __dp4a(int(a[s][2 + h]), x1, __dp4a(int(a[s][h]), x0, 0));
          } else {
            sums[h] += head.scale(h, 4 * t + 2 * s) * __dp4a(int(a[s][h]), x0, 0);
            sums[h] += head.scale(h, 4 * t + 2 * s + 1) * __dp4a(int(a[s][2 + h]), x1, 0);
          }
        }
      }
    }
    const float d = __ldg(reinterpret_cast<const float*>(record + kTail + 48));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = __fmul_rn(float(quad_sum(sums[h])), head.d[h]);
      if constexpr (Tiled::kMinWords > 0)
        sum = fmaf(float(minimum_sum<Tiled>(head.mins[h], tail)), -head.dmin[h], sum);
      f[h] = fmaf(sum, d, f[h]);
    }
  } else {
    const uint4 scales[2] = {tail(0), tail(1)};
#pragma unroll
    for (int t = 0; t < kTilesPerUnit; ++t) {
      const TileCodes<Tiled> a(unit, lane, t);
      const uint4 x = load16(record + 64 * t + 16 * (lane & 3));
      uint4 y = {};
      if constexpr (kTwoBytes<Tiled>) y = load16(record + kRecordBytes + 64 * t + 16 * (lane & 3));
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const int b = 2 * t + s;
        const float d = block_scale(scales[b >> 2], b);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int sum = quad_sum(a.dot(s, h, x, y));
          f[h] = fmaf(float(sum), __fmul_rn(head.d(h, b), d), f[h]);
        }
      }
    }
    if constexpr (Tiled::kHasM) {
      const uint4 sums = tail(2);
#pragma unroll
      for (int b = 0; b < 8; ++b)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          f[h] = fmaf(block_sum(sums, b), __fmul_rn(head.m(h, b), block_scale(scales[b >> 2], b)), f[h]);
    }
  }
}

// What make(p) gives for each stripe p of kStripes.
template <class T, int kStripes>
struct Stripes {
  T of[kStripes];
};
template <class T, class Make, int... p>
__device__ inline Stripes<T, sizeof...(p)> for_stripes(Make make, std::integer_sequence<int, p...>) {
  return {{make(p)...}};
}

// The same for a unit of each of kStripes stripes, and the first `groups` of kGroups groups of eight rows:
// f[p][g][i] += weight row l / 4 + 8 (i / 2) of stripe p times row 2 (l % 4) + i % 2 of group g.
template <class Tiled, int kStripes, int kGroups, class Rows>
__device__ inline void units_times_groups(const Byte* const (&units)[kStripes], const Rows& rows, int groups,
                                          int lane, float (&f)[kStripes][kGroups][4]) {
  using Head = typename Tiled::Head;
  constexpr std::make_integer_sequence<int, kStripes> kEach;
  const auto heads = for_stripes<Head>([&](int p) { return Head(units[p], lane >> 2); }, kEach);
  // What the groups share is computed before the first of them: the compiler does not move inline assembly
  // out of the branches.
  if constexpr (requires { Tiled::kSub; }) {
    constexpr int kPieces = kUnitCols / kTilesPerUnit / Tiled::kSub;  // of a tile, each with its scale
    int sums[kStripes][kGroups][4] = {};
#pragma unroll
    for (int t = 0; t < kTilesPerUnit; ++t) {
      Codes a[kStripes];
      int scales[kStripes][kPieces][2];
#pragma unroll
      for (int p = 0; p < kStripes; ++p) {
        Tiled::codes(units[p], lane, t, a[p]);
#pragma unroll
        for (int i = 0; i < 2 * kPieces; ++i)
          scales[p][i >> 1][i & 1] = heads.of[p].scale(i & 1, kPieces * t + (i >> 1));
      }
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        if (kGroups > 1 && g >= groups) break;
        const uint4 x = rows.codes(g, t);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
          const unsigned x0 = s == 0 ? x.x : x.z, x1 = s == 0 ? x.y : x.w;
#pragma unroll
          for (int p = 0; p < kStripes; ++p) {
            if constexpr (Tiled::kSub == 32) {
              int c[4] = {};
              mma_k32(c, a[p][s], x0, x1);
#pragma unroll
              for (int i = 0; i < 4; ++i) sums[p][g][i] += scales[p][s][i >> 1] * c[i];
            } else {
              int c[4] = {}, e[4] = {};
              mma_k16(c, a[p][s][0], a[p][s][1], x0);
              mma_k16(e, a[p][s][2], a[p][s][3], x1);
#pragma unroll
              for (int i = 0; i < 4; ++i)
                sums[p][g][i] += scales[p][2 * s][i >> 1] * c[i] + scales[p][2 * s + 1][i >> 1] * e[i];
            }
          }
        }
      }
    }
    const auto ends = for_stripes<Head>(
        [&](int p) {
          if (kStripes == 1) return heads.of[p];
          const Byte* unit = units[p];  // read anew: there are no registers for two minima all the time
          asm volatile("" : "+l"(unit));
          return Head(unit, lane >> 2);
        },
        kEach);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (kGroups > 1 && g >= groups) break;
#pragma unroll
      for (int p = 0; p < kStripes; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const Head& head = ends.of[p];
          float sum = __fmul_rn(float(sums[p][g][i]), head.d[i >> 1]);
          if constexpr (Tiled::kMinWords > 0) {
            const auto tail = [&](int part) { return rows.tail(g, i & 1, part); };
            sum = fmaf(float(minimum_sum<Tiled>(head.mins[i >> 1], tail)), -head.dmin[i >> 1], sum);
          }
          f[p][g][i] = fmaf(sum, rows.scale(g, i & 1), f[p][g][i]);
        }
    }
  } else {
#pragma unroll
    for (int t = 0; t < kTilesPerUnit; ++t) {
      const auto a =
          for_stripes<TileCodes<Tiled>>([&](int p) { return TileCodes<Tiled>(units[p], lane, t); }, kEach);
      float d[kStripes][2][2];
#pragma unroll
      for (int p = 0; p < kStripes; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i) d[p][i >> 1][i & 1] = heads.of[p].d(i & 1, 2 * t + (i >> 1));
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        // With two bytes also a branch that keeps ptxas from fetching all tiles at once.
        if ((kGroups > 1 || kTwoBytes<Tiled>)&&g >= groups) break;
        const uint4 x = rows.codes(g, t);
        uint4 y = {}, scales[2];
        if constexpr (kTwoBytes<Tiled>) {  // with no register to spare
          y = rows.low_codes(g, t);
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            const uint2 pair = rows.scales(g, j, t);
            scales[j] = {pair.x, pair.y, pair.x, pair.y};
          }
        } else {
#pragma unroll
          for (int j = 0; j < 2; ++j) scales[j] = rows.tail(g, j, t >> 1);
        }
#pragma unroll
        for (int s = 0; s < 2; ++s)
#pragma unroll
          for (int p = 0; p < kStripes; ++p) {
            int c[4] = {};
            a.of[p].multiply(c, s, x, y);
            const int b = 2 * t + s;
#pragma unroll
            for (int i = 0; i < 4; ++i)
              f[p][g][i] =
                  fmaf(float(c[i]), __fmul_rn(d[p][s][i >> 1], block_scale(scales[i & 1], b)), f[p][g][i]);
          }
      }
    }
    if constexpr (Tiled::kHasM) {
      float m[kStripes][8][2];
#pragma unroll
      for (int p = 0; p < kStripes; ++p)
#pragma unroll
        for (int i = 0; i < 16; ++i) m[p][i >> 1][i & 1] = heads.of[p].m(i & 1, i >> 1);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        if (kGroups > 1 && g >= groups) break;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const uint4 sums = rows.tail(g, j, 2), scales[2] = {rows.tail(g, j, 0), rows.tail(g, j, 1)};
#pragma unroll
          for (int b = 0; b < 8; ++b) {
            const float d = block_scale(scales[b >> 2], b), sum = block_sum(sums, b);
#pragma unroll
            for (int p = 0; p < kStripes; ++p)
#pragma unroll
              for (int h = 0; h < 2; ++h)
                f[p][g][2 * h + j] = fmaf(sum, __fmul_rn(m[p][b][h], d), f[p][g][2 * h + j]);
          }
        }
      }
    }
  }
}

}  // namespace maestrale::device
