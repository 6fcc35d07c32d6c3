// SPDX-License-Identifier: Apache-2.0
#include "engine/page_table.h"

#include <algorithm>

namespace maestrale {
namespace {

// The first page that a query at `position` or later can see.
int64_t first_visible_page(int64_t position, int64_t window) {
  if (window == 0) return 0;
  return std::max<int64_t>(0, position - window + 1) / kPagePositions;
}

}  // namespace

int64_t pages_needed(int64_t length, int64_t window, int64_t chunk) {
  const int64_t all = (length + kPagePositions - 1) / kPagePositions;
  if (window == 0 || window >= length) return all;
  // window - 1 + chunk positions, of which neither end needs to lie on a page border.
  return std::min(all, (window - 1 + chunk + kPagePositions - 2) / kPagePositions + 1);
}

int64_t PageTable::resume(std::span<const int32_t> tokens) {
  const int64_t full = (int64_t(tokens.size()) - 1) / kPagePositions;
  std::vector<PageKey> keys;
  int64_t best = 0, run = 0;  // `run` known pages in a row end before page `keys.size()`
  for (int64_t page = 0; page < full; ++page) {
    keys.push_back(next_page_key(page == 0 ? last_key_ : keys.back(),
                                 tokens.subspan(size_t(page * kPagePositions), size_t(kPagePositions))));
    run = pool_->contains(keys.back()) ? run + 1 : 0;
    const int64_t next = page + 1;
    if (run >= next - first_visible_page(next * kPagePositions, window_)) best = next;
    // With full attention nothing after the first gap can be used.
    if (run == 0 && window_ == 0) break;
  }
  if (best == 0) return 0;
  first_page_ = first_visible_page(best * kPagePositions, window_);
  for (int64_t page = first_page_; page < best; ++page) pages_.push_back(*pool_->acquire(keys[size_t(page)]));
  published_ = best;
  last_key_ = keys[size_t(best - 1)];
  return best * kPagePositions;
}

void PageTable::extend(int64_t end) {
  while ((first_page_ + int64_t(pages_.size())) * kPagePositions < end) pages_.push_back(pool_->allocate());
}

void PageTable::commit(std::span<const int32_t> tokens) {
  const int64_t end = int64_t(tokens.size());
  for (; (published_ + 1) * kPagePositions <= end; ++published_) {
    last_key_ =
        next_page_key(last_key_, tokens.subspan(size_t(published_ * kPagePositions), size_t(kPagePositions)));
    pool_->publish(pages_[size_t(published_ - first_page_)], last_key_);
  }
  const int64_t gone = std::min(first_visible_page(end, window_) - first_page_, int64_t(pages_.size()));
  if (gone <= 0) return;
  for (int64_t i = 0; i < gone; ++i) pool_->release(pages_[size_t(i)]);
  pages_.erase(pages_.begin(), pages_.begin() + gone);
  first_page_ += gone;
}

void PageTable::clear() {
  // The end of a text is worth less than its beginning, so it is let go, and later evicted, first.
  for (size_t i = pages_.size(); i > 0; --i) pool_->release(pages_[i - 1]);
  pages_.clear();
}

}  // namespace maestrale
