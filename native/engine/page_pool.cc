// SPDX-License-Identifier: Apache-2.0
#include "engine/page_pool.h"

#include <string>

#include "base/error.h"

namespace maestrale {

PagePool::PagePool(int64_t total, int64_t max_cached) : total_(total), max_cached_(max_cached) {}

PageId PagePool::allocate() {
  if (free_.empty() && int64_t(pages_.size()) == total_) {
    if (cached_.empty())
      throw Error(ErrorCode::kInternal, "all " + std::to_string(total_) + " KV pages are in use");
    evict_oldest();
  }
  PageId page;
  if (free_.empty()) {
    page = PageId(pages_.size());
    pages_.emplace_back();
  } else {
    page = free_.top();
    free_.pop();
  }
  pages_[size_t(page)].holders = 1;
  ++used_;
  return page;
}

void PagePool::release(PageId id) {
  Page& page = pages_[size_t(id)];
  if (page.holders <= 0)
    throw Error(ErrorCode::kInternal, "KV page " + std::to_string(id) + " was released twice");
  if (--page.holders > 0) return;
  --used_;
  if (!page.published) {
    free_.push(id);
    return;
  }
  page.place = cached_.insert(cached_.end(), id);
  if (int64_t(cached_.size()) > max_cached_) evict_oldest();
}

void PagePool::publish(PageId id, const PageKey& key) {
  Page& page = pages_[size_t(id)];
  if (max_cached_ == 0 || page.published || !by_key_.try_emplace(key, id).second) return;
  page.published = true;
  page.key = key;
}

std::optional<PageId> PagePool::acquire(const PageKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return std::nullopt;
  Page& page = pages_[size_t(found->second)];
  if (page.holders++ == 0) {
    cached_.erase(page.place);
    ++used_;
  }
  return found->second;
}

void PagePool::evict_oldest() {
  const PageId id = cached_.front();
  Page& page = pages_[size_t(id)];
  cached_.pop_front();
  by_key_.erase(page.key);
  page.published = false;
  free_.push(id);
}

PagePool::Stats PagePool::stats() const {
  const int64_t cached = int64_t(cached_.size());
  return {total_, used_, cached, int64_t(free_.size()) + total_ - int64_t(pages_.size())};
}

void PagePool::check() const {
  const Stats s = stats();
  int64_t used = 0, published = 0;
  for (const Page& page : pages_) {
    used += page.holders > 0;
    published += page.published;
  }
  bool sound = s.free + s.used + s.cached == s.total && used == s.used && s.cached <= max_cached_ &&
               published == int64_t(by_key_.size());
  for (const PageId id : cached_) sound = sound && pages_[size_t(id)].holders == 0;
  if (!sound)
    throw Error(ErrorCode::kInternal, "the KV pages do not add up: " + std::to_string(s.free) + " free, " +
                                          std::to_string(s.used) + " used (" + std::to_string(used) +
                                          " counted), " + std::to_string(s.cached) + " cached, " +
                                          std::to_string(s.total) + " in all");
}

}  // namespace maestrale
