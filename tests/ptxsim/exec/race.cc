// SPDX-License-Identifier: Apache-2.0
// Two accesses race when they touch the same byte, one of them writes, not both are atomic, and
// nothing orders them.
#include "exec/race.h"

#include <algorithm>

#include "exec/cta.h"

namespace maestrale::ptxsim {
namespace {

bool writes(AccessKind k) {
  return k == AccessKind::kStore || k == AccessKind::kAtomic || k == AccessKind::kVolatileStore;
}
bool atomic(AccessKind k) {
  return k == AccessKind::kAtomic || k == AccessKind::kVolatileLoad || k == AccessKind::kVolatileStore;
}

uint8_t byte_mask(uint64_t word, uint64_t begin, uint64_t end) {
  uint8_t mask = 0;
  for (uint64_t b = 0; b < 4; ++b)
    if (word * 4 + b >= begin && word * 4 + b < end) mask |= uint8_t(1 << b);
  return mask;
}

// Did the touch happen before what lane `lane` of w does now? Both in one CTA.
bool before(const Warp& w, int lane, const Touch& t) {
  if (t.warp != w.index) return t.time < w.cta->clocks.seen[size_t(w.index)][t.warp];
  if (t.lane == lane || t.time < w.full_sync) return true;
  return !w.pair_sync.empty() && t.time < w.pair_sync[size_t(t.lane) * 32 + size_t(lane)];
}

std::string thread_name(const Touch& t) {
  return "thread " + std::to_string(t.warp * 32 + t.lane) + " of the block";
}

}  // namespace

void WarpClocks::meet(uint32_t arrived, uint32_t waiting, uint32_t now) {
  std::array<uint32_t, 32> all{};
  for (uint32_t a = arrived; a; a &= a - 1) {
    const size_t w = size_t(__builtin_ctz(a));
    for (size_t v = 0; v < 32; ++v) all[v] = std::max(all[v], seen[w][v]);
    all[w] = now;
  }
  for (uint32_t a = waiting; a; a &= a - 1) seen[size_t(__builtin_ctz(a))] = all;
}

void SharedRaces::access(Warp& w, const Op& op, int lane, uint32_t offset, uint32_t bytes, AccessKind kind,
                         bool pending) {
  const uint32_t now = w.cta->launch->clock.now;
  const Touch mine{now, uint8_t(w.index), uint8_t(lane), 0,
                   uint8_t((atomic(kind) ? kTouchAtomic : 0) | (pending ? kTouchPending : 0))};
  for (uint32_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
    Word& record = words_[word];
    const uint8_t mask = bytes >= 4 ? 15 : byte_mask(word, offset, offset + bytes);
    const auto conflicts = [&](const Touch& t) {
      return t.time && (t.bytes & mask) && !((t.flags & kTouchAtomic) && atomic(kind));
    };
    if (conflicts(record.writer)) {
      if (record.writer.flags & kTouchPending)
        report(w, op, lane, FaultKind::kRace,
               "shared memory at offset " + std::to_string(offset) +
                   " is still being written by an asynchronous copy of " + thread_name(record.writer));
      if (!before(w, lane, record.writer))
        report(w, op, lane, FaultKind::kRace,
               std::string(writes(kind) ? "writes" : "reads") + " shared memory at offset " +
                   std::to_string(offset) + " that " + thread_name(record.writer) +
                   " wrote without a barrier in between");
    }
    Touch touch = mine;
    touch.bytes = mask;
    if (writes(kind)) {
      for (Touch& r : record.readers) {
        if (conflicts(r) && !before(w, lane, r))
          report(w, op, lane, FaultKind::kRace,
                 "overwrites shared memory at offset " + std::to_string(offset) + " that " + thread_name(r) +
                     " read without a barrier in between");
        r.time = 0;
      }
      record.writer = touch;
    } else {
      Touch* slot = &record.readers[1];
      for (Touch& r : record.readers)
        if (r.time == 0 || (r.warp == w.index && r.lane == lane) || before(w, lane, r)) {
          slot = &r;
          break;
        }
      *slot = touch;
    }
  }
}

void SharedRaces::complete(Warp& w, int lane, uint32_t offset, uint32_t bytes) {
  for (uint32_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) {
    Touch& t = words_[word].writer;
    if (t.warp != w.index || t.lane != lane) continue;
    t.flags = uint8_t(t.flags & ~kTouchPending);
    t.time = w.cta->launch->clock.now;
  }
}

void GlobalRaces::access(Warp& w, const Op& op, int lane, uint64_t address, uint32_t bytes, AccessKind kind) {
  const uint64_t number = address / kPage;
  if (number != last_page_number_) {
    const auto found = pages_.find(number);
    if (found == pages_.end() && !writes(kind)) return;
    Page* page =
        found == pages_.end() ? (pages_[number] = std::make_unique<Page>()).get() : found->second.get();
    last_page_number_ = number;
    last_page_ = page;
  }
  const Cta& cta = *w.cta;
  const uint64_t in_page = address % kPage;  // accesses are aligned: none leaves its page
  for (uint64_t word = in_page / 4; word <= (in_page + bytes - 1) / 4; ++word) {
    Word& record = (*last_page_)[word];
    const uint8_t mask = bytes >= 4 ? 15 : byte_mask(word, in_page, in_page + bytes);
    const Touch& t = record.writer;
    if (t.time && (t.bytes & mask) && !((t.flags & kTouchAtomic) && atomic(kind))) {
      bool ordered;
      if (record.cta == cta.number) {
        ordered = before(w, lane, t);
      } else {
        const auto mine = acquired_.find(cta.number);
        const auto theirs =
            mine == acquired_.end() ? Releases::const_iterator() : mine->second.find(record.cta);
        ordered = mine != acquired_.end() && theirs != mine->second.end() && t.time <= theirs->second;
      }
      if (!ordered)
        report(w, op, lane, FaultKind::kRace,
               std::string(writes(kind) ? "writes" : "reads") + " global memory that " + thread_name(t) +
                   " " + std::to_string(record.cta) +
                   " wrote in the same launch, with nothing to order the two");
    }
    if (writes(kind))
      record = {{cta.launch->clock.now, uint8_t(w.index), uint8_t(lane), mask,
                 uint8_t(atomic(kind) ? kTouchAtomic : 0)},
                cta.number};
  }
}

void GlobalRaces::fence(Warp& w) {
  fences_[uint64_t(w.cta->number) * 32 + uint64_t(w.index)] = w.cta->launch->clock.now;
  w.cta->launch->clock.tick();
}

void GlobalRaces::synchronise(Warp& w, uint64_t address, bool releases, bool acquires) {
  const uint32_t cta = w.cta->number;
  Releases& here = released_[address / 4];
  if (acquires) {
    Releases& mine = acquired_[cta];
    for (const auto& [other, time] : here) mine[other] = std::max(mine[other], time);
  }
  if (!releases) return;
  const auto fenced = fences_.find(uint64_t(cta) * 32 + uint64_t(w.index));
  if (fenced == fences_.end()) return;
  here[cta] = std::max(here[cta], fenced->second);
  // What this CTA has acquired it passes on.
  const auto mine = acquired_.find(cta);
  if (mine != acquired_.end())
    for (const auto& [other, time] : mine->second) here[other] = std::max(here[other], time);
}

}  // namespace maestrale::ptxsim
