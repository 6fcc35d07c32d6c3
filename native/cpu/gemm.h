// SPDX-License-Identifier: Apache-2.0
// A matrix product as a loop over tiles, in one of two orders: many rows keep weights in the second-level
// cache, few rows stream them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/integer.h"
#include "cpu/gemm_tile.h"
#include "cpu/kernels.h"

namespace maestrale {

// Writes or adds 16 outputs of one panel and one row.
template <class V>
[[gnu::always_inline]] inline void store_outputs(const GemmJob& job, int panel, int row, typename V::F f) {
  float* out = job.out + row * job.out_stride + panel * kPanelRows;
  const int64_t left = job.out_cols - panel * kPanelRows;
  if (job.accumulate) {  // residual widths are multiples of 16: no padded column here
    V::store(out, V::add(V::load(out), f));
  } else if (left >= kPanelRows) {
    V::store(out, f);
  } else {
    V::store_n(out, f, int(left));
  }
}

// Bytes of an activation row that one unit of weights multiplies.
template <class Fmt>
constexpr int64_t activation_bytes() {
  if constexpr (!requires { typename Fmt::Block; }) return Fmt::kItems * int64_t(sizeof(float));
  return Fmt::kItems == 256   ? int64_t(sizeof(Activation256))
         : Fmt::kItems == 128 ? int64_t(sizeof(Activation128))
                              : int64_t(sizeof(Activation64));
}

// A tile of a job: kTilePanels panels from `panel` on, `rows` rows from `row` on, `units` units from `unit`
// on.
struct TilePlace {
  int panel, row, rows;
  int64_t unit, units;
};

// What to fetch while a tile is computed, one part in `parts` of as many bytes as the tile reads of weights.
struct FetchPlace {
  Upcoming upcoming;
  int parts;
};

// What comes up `offset` bytes into stretches of `length` bytes that begin at `first` and lie `stride` apart.
inline Upcoming stretches(const std::byte* first, int64_t stride, int64_t length, int64_t offset = 0) {
  const int64_t rest = offset % length;
  return {first + offset / length * stride + rest, length - rest, length, stride - length};
}

// One tile of C rows. Sums that are not complete when the tile ends, or begins, are kept in job.partial. The
// last of an odd number of panels is its own partner.
template <class V, class Fmt, int C>
[[gnu::noinline]] void gemm_rows(const GemmJob& job, const TilePlace& tile, const FetchPlace& fetch) {
  constexpr int R = V::kTilePanels;
  static_assert(R <= 2);
  using RowsTile = Tile<V, Fmt, R, C, false>;
  alignas(64) float own[C * R * kPanelRows];
  const bool whole = tile.units == job.units;
  float* const sums =
      whole ? own : job.partial + kPanelRows * (tile.row * R * ceil_div(job.n_panels, R) + tile.panel * C);
  if (tile.unit == 0)
    for (int i = 0; i < C * R; ++i) V::store(sums + kPanelRows * i, V::zero());
  const std::byte* x[C];
  for (int c = 0; c < C; ++c)
    x[c] = job.x + (tile.row + c) * job.x_stride + tile.unit * activation_bytes<Fmt>();
  const int panels = job.n_panels - tile.panel < R ? 1 : R;
  RowsTile::run(job.panels + tile.panel * job.panel_stride + tile.unit * Fmt::kBytes,
                panels == R ? job.panel_stride : 0, x, tile.units,
                {fetch.upcoming, RowsTile::kFetchBytes / fetch.parts}, sums);
  if (tile.unit + tile.units < job.units) return;
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < panels; ++r)
      store_outputs<V>(job, tile.panel + r, tile.row + c, V::load(sums + kPanelRows * (c * R + r)));
}

// More than kOnePanelRows rows come in as few groups as possible and of nearly equal size, so that none is
// smaller than kFewest.
template <class V, class Fmt>
[[gnu::noinline]] void gemm_tile(const GemmJob& job, const TilePlace& tile, const FetchPlace& fetch) {
  constexpr int kFewest = (V::kOnePanelRows + 1) / int(ceil_div(V::kOnePanelRows + 1, V::kTileRows));
  unroll<V::kTileRows - kFewest + 1>([&]<int i>() {
    if (tile.rows == kFewest + i) gemm_rows<V, Fmt, kFewest + i>(job, tile, fetch);
  });
}

template <class Fmt>
const std::byte* weights_at(const GemmJob& job, int panel, int64_t unit) {
  return job.panels + panel * job.panel_stride + unit * Fmt::kBytes;
}

// A tile of panels after the other, and of each a piece of the input dimension after the other, all rows for
// each: every weight comes from memory once, and meanwhile the piece that follows is fetched. Pieces are so
// short (kStreamedBytes) that two of them and the activations fit in the second-level cache.
template <class V, class Fmt>
void gemm_streaming(const GemmJob& job, int groups) {
  constexpr int R = V::kTilePanels;
  const int64_t pieces = job.partial ? ceil_div(R * job.units * Fmt::kBytes, kStreamedBytes) : 1;
  for (int panel = 0; panel < job.n_panels; panel += R) {
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t unit = job.units * piece / pieces, end = job.units * (piece + 1) / pieces;
      const std::byte* next = end < job.units            ? weights_at<Fmt>(job, panel, end)
                              : panel + R < job.n_panels ? weights_at<Fmt>(job, panel + R, 0)
                                                         : job.next_panel;
      const int64_t length = (end - unit) * Fmt::kBytes;
      for (int g = 0, row = 0; g < groups; ++g) {
        const TilePlace tile{panel, row, (job.n_rows - row) / (groups - g), unit, end - unit};
        gemm_tile<V, Fmt>(
            job, tile,
            {stretches(next ? next : job.panels, job.panel_stride, length, g * R * length / groups), groups});
        row += tile.rows;
      }
    }
  }
}

// A piece of the input dimension at a time and a group of rows for all panels: so the panels of a job, of
// which the piece is short enough for kResidentBytes, stay in the second-level cache while the activations,
// which may not, pass once. Those of the next group are fetched meanwhile.
template <class V, class Fmt>
void gemm_resident(const GemmJob& job, int groups) {
  constexpr int R = V::kTilePanels;
  const int64_t pieces = job.partial ? ceil_div(job.n_panels * job.units * Fmt::kBytes, kResidentBytes) : 1;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t unit = job.units * piece / pieces, end = job.units * (piece + 1) / pieces;
    const int64_t length = (end - unit) * Fmt::kBytes;
    for (int g = 0, row = 0; g < groups; ++g) {
      const int rows = (job.n_rows - row) / (groups - g);
      for (int panel = 0; panel < job.n_panels; panel += R) {
        Upcoming upcoming = stretches(job.panels, 0, length);  // nothing: they are cached
        if (g == 0) {                                          // these weights come from memory
          const std::byte* next = panel + R < job.n_panels ? weights_at<Fmt>(job, panel + R, unit)
                                  : end < job.units        ? weights_at<Fmt>(job, 0, end)
                                                           : job.next_panel;
          upcoming = stretches(next ? next : job.panels, job.panel_stride, length);
        } else if (g + 1 < groups && panel == 0) {
          upcoming = stretches(job.x + (row + rows) * job.x_stride + unit * activation_bytes<Fmt>(),
                               job.x_stride, (end - unit) * activation_bytes<Fmt>());
        }
        gemm_tile<V, Fmt>(job, {panel, row, rows, unit, end - unit}, {upcoming, 1});
      }
      row += rows;
    }
  }
}

// Few rows wait for memory, not for arithmetic: their tiles are one panel wide, which makes all that a thread
// reads one stream, and fetch what they read themselves, kNearBytes ahead.
template <class V, class Fmt, int C>
[[gnu::noinline]] void gemm_near(const GemmJob& job) {
  using RowsTile = Tile<V, Fmt, 1, C, true>;
  const int64_t length = job.units * Fmt::kBytes;
  const std::byte* x[C];
  for (int c = 0; c < C; ++c) x[c] = job.x + c * job.x_stride;
  for (int panel = 0; panel < job.n_panels; ++panel) {
    const std::byte* w = job.panels + panel * job.panel_stride;
    const std::byte* next = panel + 1 < job.n_panels ? w + job.panel_stride : job.next_panel;
    const Upcoming upcoming = stretches(w, (next ? next : w) - w, length, kNearBytes);
    alignas(64) float sums[C * kPanelRows] = {};
    RowsTile::run(w, 0, x, job.units, {upcoming, RowsTile::kFetchBytes}, sums);
    for (int c = 0; c < C; ++c) store_outputs<V>(job, panel, c, V::load(sums + kPanelRows * c));
  }
}

template <class V, class Fmt>
void gemm(const GemmJob& job) {
  static_assert(V::kOnePanelRows <= kNearRows);
  if (job.n_rows <= V::kOnePanelRows) {
    unroll<V::kOnePanelRows>([&]<int i>() {
      if (job.n_rows == i + 1) gemm_near<V, Fmt, i + 1>(job);
    });
    return;
  }
  const int groups = int(ceil_div(job.n_rows, V::kTileRows));
  if (job.n_rows >= kResidentRows)
    gemm_resident<V, Fmt>(job, groups);
  else
    gemm_streaming<V, Fmt>(job, groups);
}

}  // namespace maestrale
