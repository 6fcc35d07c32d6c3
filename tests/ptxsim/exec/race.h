// SPDX-License-Identifier: Apache-2.0
// Happens-before between threads, and the records of who touched which word last. Time is one counter
// of a launch that every synchronisation moves on. Warps know each other's past through vector clocks
// (Lamport 1978; the last-access records follow FastTrack, Flanagan and Freund 2009).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace maestrale::ptxsim {

struct Warp;
struct Op;
struct Cta;

struct Clock {
  uint32_t now = 1;
  uint32_t tick() { return ++now; }
};

// seen[w][v]: what warp v did before that time is known to warp w.
struct WarpClocks {
  std::array<std::array<uint32_t, 32>, 32> seen{};
  // The warps of `arrived` meet at a barrier; those of `waiting` leave with everybody's knowledge.
  void meet(uint32_t arrived, uint32_t waiting, uint32_t now);
};

enum class AccessKind : uint8_t { kLoad, kStore, kAtomic, kVolatileLoad, kVolatileStore };

// Who touched a 4-byte word, when, and which of its bytes.
struct Touch {
  uint32_t time = 0;  // 0: nobody
  uint8_t warp = 0, lane = 0;
  uint8_t bytes = 0;
  uint8_t flags = 0;  // 1: atomic or volatile, 2: an asynchronous copy that is not complete
};
inline constexpr uint8_t kTouchAtomic = 1, kTouchPending = 2;

// For shared memory: last writer and two last readers of different warps.
class SharedRaces {
 public:
  void reset(size_t bytes) { words_.assign((bytes + 3) / 4, {}); }
  // `pending` marks the destination of an asynchronous copy. Reports a race by throwing.
  void access(Warp& w, const Op& op, int lane, uint32_t offset, uint32_t bytes, AccessKind kind,
              bool pending = false);
  // The copy is complete for `lane`.
  void complete(Warp& w, int lane, uint32_t offset, uint32_t bytes);

 private:
  struct Word {
    Touch writer, readers[2];
  };
  std::vector<Word> words_;
};

// For global memory: the last writer of every word written in the launch. CTAs run in random order,
// so a read that another order would put before a write is met after it in some run.
class GlobalRaces {
 public:
  void access(Warp& w, const Op& op, int lane, uint64_t address, uint32_t bytes, AccessKind kind);
  // A fence makes what the CTA did so far ready to be released.
  void fence(Warp& w);
  // An atomic or volatile access: releases what was fenced (stores) and acquires what others released.
  void synchronise(Warp& w, uint64_t address, bool releases, bool acquires);
  bool any_write_near(uint64_t address) const { return pages_.count(address / kPage) != 0; }

 private:
  static constexpr uint64_t kPage = 4096;
  struct Word {
    Touch writer;
    uint32_t cta = 0;
  };
  using Page = std::array<Word, kPage / 4>;
  using Releases = std::unordered_map<uint32_t, uint32_t>;  // CTA -> time
  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
  std::unordered_map<uint64_t, Releases> released_;  // by word
  std::unordered_map<uint32_t, Releases> acquired_;  // by CTA
  std::unordered_map<uint64_t, uint32_t> fences_;    // by CTA and warp
  uint64_t last_page_number_ = ~uint64_t{0};
  Page* last_page_ = nullptr;
};

}  // namespace maestrale::ptxsim
