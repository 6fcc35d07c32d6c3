// SPDX-License-Identifier: Apache-2.0
// What one step of the engine computes: rows (tokens) of several sequences, concatenated.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace maestrale {

// KV pages hold kPagePositions positions of one sequence, for all layers and KV heads. Page p of a
// sequence covers the absolute positions [p * kPagePositions, (p + 1) * kPagePositions), so page and
// tile borders never depend on how a prompt was chunked.
inline constexpr int64_t kPagePositions = 64;
using PageId = int32_t;

struct Adapter;  // of native/model

struct BatchSequence {
  int32_t first_row = 0;  // rows [first_row, first_row + n_rows) of the batch
  int32_t n_rows = 0;
  int64_t first_position = 0;        // absolute position of first_row; the others follow one by one
  int64_t first_page = 0;            // absolute number of pages[0]; earlier pages have left the window
  std::span<const PageId> pages;     // cover every visible position up to the last row's own
  const Adapter* adapter = nullptr;  // neighbours with the same one are computed together
};

struct RowRange {
  int32_t first = 0;
  int32_t count = 0;

  bool operator==(const RowRange&) const = default;
};

struct Batch {
  std::vector<int32_t> tokens;  // (n_rows)
  std::vector<BatchSequence> sequences;

  int32_t n_rows() const { return int32_t(tokens.size()); }
};

}  // namespace maestrale
