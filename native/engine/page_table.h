// SPDX-License-Identifier: Apache-2.0
// The KV pages of one sequence: which are held, which can be reused from earlier requests, which have
// left the sliding window. A key at position j is visible to a query at i iff i - W < j <= i.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/page_pool.h"

namespace maestrale {

// Most pages that a sequence of `length` tokens ever holds when at most `chunk` of them are computed in
// one step. `window` 0: full attention.
int64_t pages_needed(int64_t length, int64_t window, int64_t chunk);

class PageTable {
 public:
  // `root` names what the keys and values depend on beside the tokens: 0 is the base model alone, else the
  // id of an adapter. Tables of different roots share no page.
  PageTable(PagePool& pool, int64_t window, uint64_t root = 0)
      : pool_(&pool), window_(window), last_key_(root_page_key(root)) {}
  ~PageTable() { clear(); }
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  // Holds the cached pages that let the computation of `tokens` begin as late as possible, and returns
  // the position where: a multiple of kPagePositions, below tokens.size(), since the last token is always
  // computed. Called once, first.
  int64_t resume(std::span<const int32_t> tokens);

  // Makes room for the positions below `end`.
  void extend(int64_t end);

  // `tokens` has been computed up to its end: publishes the pages that have become full and lets go of
  // those that no later query sees.
  void commit(std::span<const int32_t> tokens);

  // Lets go of everything; what commit() has not seen is never reused.
  void clear();

  int64_t first_page() const { return first_page_; }  // absolute number of pages()[0]
  std::span<const PageId> pages() const { return pages_; }

 private:
  PagePool* pool_;
  int64_t window_;
  int64_t first_page_ = 0;
  std::vector<PageId> pages_;
  int64_t published_ = 0;  // pages below this number have a key
  PageKey last_key_;       // of page published_ - 1, at first the root
};

}  // namespace maestrale
