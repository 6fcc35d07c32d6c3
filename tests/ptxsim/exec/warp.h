// SPDX-License-Identifier: Apache-2.0
// The state of one warp while it runs: registers, groups of lanes that have diverged, its pending
// asynchronous copies, and the lane loops that handlers are made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "exec/op.h"

namespace maestrale::ptxsim {

struct Cta;

inline constexpr int kWarpSize = 32;
inline constexpr uint32_t kAllLanes = 0xffffffffu;

// Lanes at one place. When a branch diverges the group becomes a join: it waits at `pc` until its
// children have reached their `rpc` (or exited), and goes on with the lanes that arrived.
struct Group {
  enum State : uint8_t { kReady, kJoin, kWaiting, kDead };
  State state = kReady;
  int32_t pc = 0;
  int32_t rpc = -1;
  int32_t parent = -1;
  int32_t children = 0;
  uint32_t mask = 0;
  uint32_t arrived = 0;
  std::vector<int32_t> returns;  // pcs of the calls it is in
};

struct PendingCopy {
  uint32_t group;  // number of the lane's group it belongs to
  uint8_t lane, bytes, valid_bytes;
  bool done;  // performed at issue; only its completion is outstanding
  uint32_t to;
  uint64_t from;
  const Op* op;
};

struct Warp {
  Cta* cta = nullptr;
  int index = 0;
  std::byte* registers = nullptr;
  uint32_t live = 0;  // lanes that exist and have not exited
  std::vector<Group> groups;
  int current = 0;
  bool finished = false;
  bool at_barrier = false;
  const Op* op = nullptr;  // being executed, for reports

  std::vector<std::byte> frame;        // lane-major local memory
  std::vector<uint8_t> frame_written;  // one byte a byte

  std::vector<PendingCopy> copies;
  uint32_t copy_group[kWarpSize] = {};

  // Happens-before inside the warp: `time` grows at every synchronisation; pair_sync[l][m] is the time
  // of the last bar.warp.sync that joined the two lanes, full_sync that of the last one of all lanes.
  uint32_t time = 1, full_sync = 0;
  std::vector<uint32_t> pair_sync;

  template <class T>
  T* reg(uint32_t slot) const {
    return reinterpret_cast<T*>(registers + slot);
  }
  uint32_t& pred(uint32_t slot) const { return *reinterpret_cast<uint32_t*>(registers + slot); }
};

// d[i] = f(i) for the lanes of `mask`; d may be an operand of f, lane by lane.
template <class D, class F>
inline void lanes(D* d, uint32_t mask, F f) {
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (int i = 0; i < kWarpSize; ++i) d[i] = f(i);
    return;
  }
  D result[kWarpSize];
  for (int i = 0; i < kWarpSize; ++i) result[i] = f(i);
#pragma GCC ivdep
  for (int i = 0; i < kWarpSize; ++i) d[i] = (mask >> i & 1) ? result[i] : d[i];
}

// For loops that must not touch the other lanes at all (divisions, calls).
template <class F>
inline void each_lane(uint32_t mask, F f) {
  for (uint32_t rest = mask; rest; rest &= rest - 1) f(__builtin_ctz(rest));
}

// The mask of lanes for which f holds.
template <class F>
inline uint32_t ballot(F f) {
  uint32_t bits = 0;
  for (int i = 0; i < kWarpSize; ++i) bits |= uint32_t(f(i) ? 1 : 0) << i;
  return bits;
}

inline void set_pred(uint32_t& p, uint32_t mask, uint32_t value) { p = (p & ~mask) | (value & mask); }

}  // namespace maestrale::ptxsim
