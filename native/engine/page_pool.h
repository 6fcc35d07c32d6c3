// SPDX-License-Identifier: Apache-2.0
// Who holds which KV page. A page is free, used (by one or more sequences) or cached: full, held by
// nobody, kept under its key in case a later request begins with the same text. Belongs to the engine's
// thread. free + used + cached == total at all times.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <queue>
#include <unordered_map>
#include <vector>

#include "backend/batch.h"
#include "engine/page_key.h"

namespace maestrale {

class PagePool {
 public:
  struct Stats {
    int64_t total = 0, used = 0, cached = 0, free = 0;
  };

  // At most `max_cached` pages stay cached; 0 turns the prefix cache off.
  PagePool(int64_t total, int64_t max_cached);

  // A page with one holder. The lowest free id, so that memory once touched is touched again; when none
  // is free, the cached page that was let go first. Throws Error{kInternal} when every page is used:
  // whoever allocates has reserved before (see Scheduler).
  PageId allocate();
  // Lets go of one hold. The last one makes the page cached if it was published, else free.
  void release(PageId page);

  // Declares that `page` (used) is full and holds what `key` names. From here on it is immutable.
  // Nothing happens when another page is known by this key.
  void publish(PageId page, const PageKey& key);
  // Is a page known by this key?
  bool contains(const PageKey& key) const { return by_key_.count(key) != 0; }
  // Takes a hold of the page known by this key, if there is one.
  std::optional<PageId> acquire(const PageKey& key);

  Stats stats() const;
  // Recounts everything; Error{kInternal} when a page is lost or counted twice. O(total).
  void check() const;

 private:
  struct Page {
    int32_t holders = 0;
    bool published = false;
    PageKey key;
    std::list<PageId>::iterator place;  // in cached_, while holders == 0 and published
  };

  void evict_oldest();

  int64_t total_, max_cached_;
  std::vector<Page> pages_;  // those that were ever used: ids 0 .. pages_.size() - 1
  std::priority_queue<PageId, std::vector<PageId>, std::greater<>> free_;  // among them
  std::list<PageId> cached_;                                               // let go longest ago first
  std::unordered_map<PageKey, PageId, PageKeyHash> by_key_;
  int64_t used_ = 0;
};

}  // namespace maestrale
