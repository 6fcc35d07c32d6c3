// SPDX-License-Identifier: Apache-2.0
// Divergence follows the control flow graph: the sides of a branch run apart until its immediate
// post-dominator. Lanes that a .sync instruction names may still be elsewhere: the group that came first
// is parked and the others run on, as independent thread scheduling allows.
#include "exec/schedule.h"

#include <algorithm>
#include <cstdio>

#include "exec/supplied.h"

namespace maestrale::ptxsim {
namespace {

// Backward branches and yields after which another warp gets its turn.
constexpr int kTurn = 4096;

const Op& op_at(const Warp& w, const Group& g) { return w.cta->launch->program->ops[size_t(g.pc)]; }

std::string hex_mask(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

int new_group(Warp& w) {
  for (size_t i = 0; i < w.groups.size(); ++i)
    if (w.groups[i].state == Group::kDead) return int(i);
  w.groups.emplace_back();
  return int(w.groups.size()) - 1;
}

void child_gone(Warp& w, int parent) {
  while (parent >= 0) {
    Group& p = w.groups[size_t(parent)];
    if (--p.children > 0) return;
    if (p.arrived) {
      p.state = Group::kReady;
      p.mask = p.arrived;
      p.arrived = 0;
      return;
    }
    p.state = Group::kDead;
    parent = p.parent;
  }
}

// The current group has come to the join of its parent.
void join(Warp& w) {
  Group& g = w.groups[size_t(w.current)];
  g.state = Group::kDead;
  w.groups[size_t(g.parent)].arrived |= g.mask;
  child_gone(w, g.parent);
}

void add_side(Warp& w, int parent, int rpc, int pc, uint32_t mask, const std::vector<int32_t>& returns) {
  if (pc == rpc) {
    w.groups[size_t(parent)].arrived |= mask;
    return;
  }
  const int side = new_group(w);
  Group& g = w.groups[size_t(side)];
  g = Group{};
  g.pc = pc;
  g.rpc = rpc;
  g.parent = parent;
  g.mask = mask;
  g.returns = returns;
  if (parent >= 0) ++w.groups[size_t(parent)].children;
}

// Splits the current group at a branch; it keeps no lanes of its own afterwards, or waits as the join.
void diverge(Warp& w, const Op& op, uint32_t taken, uint32_t passed, int next) {
  ++w.cta->counters->divergent_branches;
  const std::vector<int32_t> returns = w.groups[size_t(w.current)].returns;
  int parent = w.groups[size_t(w.current)].parent;
  const int rpc = op.reconverge;
  if (rpc == w.groups[size_t(w.current)].rpc) {
    // The sides meet where the group would have joined anyway (or at the end of the program).
    Group& g = w.groups[size_t(w.current)];
    g.state = Group::kDead;
    add_side(w, parent, rpc, op.target, taken, returns);
    add_side(w, parent, rpc, next, passed, returns);
    child_gone(w, parent);
    return;
  }
  parent = w.current;
  Group& g = w.groups[size_t(w.current)];
  g.state = Group::kJoin;
  g.pc = rpc;
  g.children = 0;
  g.arrived = 0;
  if (rpc < 0) {  // no place to join: two groups of their own
    g.state = Group::kDead;
    const int grand = g.parent;
    add_side(w, grand, g.rpc, op.target, taken, returns);
    add_side(w, grand, w.groups[size_t(w.current)].rpc, next, passed, returns);
    child_gone(w, grand);
    return;
  }
  add_side(w, parent, rpc, op.target, taken, returns);
  add_side(w, parent, rpc, next, passed, returns);
}

void exit_lanes(Warp& w, uint32_t mask) {
  w.live &= ~mask;
  Group& g = w.groups[size_t(w.current)];
  g.mask &= ~mask;
  if (g.mask) return;
  g.state = Group::kDead;
  child_gone(w, g.parent);
}

void return_from_call(Warp& w, uint32_t mask) {
  Group& g = w.groups[size_t(w.current)];
  const int at = g.returns.back();
  g.returns.pop_back();
  const CallSite& call = *w.cta->launch->program->ops[size_t(at)].call;
  const int64_t frame = w.cta->launch->program->frame_bytes;
  each_lane(mask, [&](int lane) {
    for (const auto& c : call.results) {
      std::copy_n(w.frame.begin() + lane * frame + c.from, c.bytes, w.frame.begin() + lane * frame + c.to);
      std::copy_n(w.frame_written.begin() + lane * frame + c.from, c.bytes,
                  w.frame_written.begin() + lane * frame + c.to);
    }
  });
  g.pc = at + 1;
}

void enter_call(Warp& w, const Op& op, uint32_t mask, int pc) {
  const int64_t frame = w.cta->launch->program->frame_bytes;
  each_lane(mask, [&](int lane) {
    for (const auto& c : op.call->arguments) {
      std::copy_n(w.frame.begin() + lane * frame + c.from, c.bytes, w.frame.begin() + lane * frame + c.to);
      std::copy_n(w.frame_written.begin() + lane * frame + c.from, c.bytes,
                  w.frame_written.begin() + lane * frame + c.to);
    }
  });
  Group& g = w.groups[size_t(w.current)];
  g.returns.push_back(pc);
  g.pc = op.target;
}

// The member mask of a .sync instruction, the same in all lanes that execute it.
uint32_t members(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* slot = w.reg<uint32_t>(op.src[3]);
  const uint32_t value = slot[__builtin_ctz(mask)];
  each_lane(mask, [&](int i) {
    if (slot[i] != value)
      report(w, op, i, FaultKind::kWarpSync, "lanes disagree about the member mask of '.sync'");
    if (!(value >> i & 1))
      report(w, op, i, FaultKind::kWarpSync,
             "executes a '.sync' whose member mask " + hex_mask(value) + " does not name it");
  });
  return value;
}

void after_warp_barrier(Warp& w, uint32_t joined) {
  const uint32_t now = w.cta->launch->clock.tick();
  if ((joined & w.live) == w.live) {
    w.full_sync = now;
    return;
  }
  if (w.pair_sync.empty()) w.pair_sync.assign(32 * 32, 0);
  each_lane(joined,
            [&](int a) { each_lane(joined, [&](int b) { w.pair_sync[size_t(a) * 32 + size_t(b)] = now; }); });
}

// Tries to let parked groups go on; true when one did, or the warp has come to a CTA barrier.
bool release_parked(Warp& w) {
  for (size_t i = 0; i < w.groups.size(); ++i) {
    if (w.groups[i].state != Group::kWaiting) continue;
    const Group& first = w.groups[i];
    const Op& op = op_at(w, first);
    uint32_t together = 0, required = w.live;
    const bool any_place = op.flow == Flow::kWarpBarrier;
    if (op.flow != Flow::kCtaBarrier) required &= members(w, op, first.mask);
    const auto meets = [&](const Group& g) {
      if (g.state != Group::kWaiting) return false;
      if (g.pc == first.pc) return true;
      const Op& other = op_at(w, g);
      if (any_place)
        return other.flow == Flow::kWarpBarrier && members(w, other, g.mask) == members(w, op, first.mask);
      return op.flow == Flow::kCtaBarrier && other.flow == Flow::kCtaBarrier && !(op.variant & kBarAligned) &&
             !(other.variant & kBarAligned);
    };
    for (const Group& g : w.groups)
      if (meets(g)) together |= g.mask;
    if ((required & ~together) != 0) continue;
    if (op.flow == Flow::kCtaBarrier) {
      w.at_barrier = true;
      arrive_at_barrier(*w.cta, w, op, together, true);
      return true;
    }
    std::vector<size_t> going;
    for (size_t k = 0; k < w.groups.size(); ++k)
      if (meets(w.groups[k])) going.push_back(k);
    if (op.flow == Flow::kCollective) {
      w.op = &op;
      members(w, op, together);
      op.run(w, op, together);
    } else {
      after_warp_barrier(w, together);
    }
    for (const size_t k : going) {
      w.groups[k].state = Group::kReady;
      ++w.groups[k].pc;
    }
    return true;
  }
  return false;
}

[[noreturn]] void report_stuck(Warp& w) {
  std::string text;
  const Group* first = nullptr;
  bool barrier = false;
  for (const Group& g : w.groups) {
    if (g.state != Group::kWaiting) continue;
    if (!first) first = &g;
    const Op& op = op_at(w, g);
    barrier |= op.flow == Flow::kCtaBarrier;
    text += (text.empty() ? "" : ", ") + std::string("lanes ") + hex_mask(g.mask) + " wait at line " +
            std::to_string(op.line);
  }
  const Op& op = op_at(w, *first);
  report(w, op, __builtin_ctz(first->mask), barrier ? FaultKind::kBarrier : FaultKind::kWarpSync,
         (barrier ? "a barrier in diverged code: " : "lanes that '.sync' names never come: ") + text +
             "; alive are " + hex_mask(w.live));
}

// Makes a ready group current; false when none is.
bool pick(Warp& w) {
  int found = -1, ready = 0;
  for (size_t i = 0; i < w.groups.size(); ++i) {
    if (w.groups[i].state != Group::kReady) continue;
    ++ready;
    if (found < 0 || w.cta->launch->random() % uint64_t(ready) == 0) found = int(i);
  }
  w.current = found;
  return found >= 0;
}

enum class Event : uint8_t { kSwitch, kYield };

// Runs the current group until something other than straight-line code needs the scheduler.
Event run_group(Warp& w, int& turn) {
  Launch& launch = *w.cta->launch;
  const Op* const ops = launch.program->ops.data();
  Counters& counters = launch.counters;
  int pc = w.groups[size_t(w.current)].pc;
  const int rpc = w.groups[size_t(w.current)].rpc;
  const uint32_t mask = w.groups[size_t(w.current)].mask;
  const auto leave = [&](Event e) {
    w.groups[size_t(w.current)].pc = pc;
    return e;
  };
  for (;;) {
    if (pc == rpc) {
      join(w);
      return Event::kSwitch;
    }
    const Op& op = ops[pc];
    uint32_t active = mask;
    if (op.guard != kNoSlot) active &= w.pred(op.guard) ^ op.guard_flip;
    ++counters.warp_instructions;
    counters.thread_instructions += uint64_t(__builtin_popcount(active));
    if (op.flow == Flow::kNone) {
      if (active) {
        w.op = &op;
        op.run(w, op, active);
      }
      ++pc;
      continue;
    }
    if (op.flow == Flow::kBranch) {
      const uint32_t passed = mask & ~active;
      if (active && op.target <= pc && --turn <= 0) {
        counters.warp_instructions--;
        counters.thread_instructions -= uint64_t(__builtin_popcount(active));
        return leave(Event::kYield);
      }
      if (!active) {
        ++pc;
      } else if (!passed) {
        pc = op.target;
      } else {
        diverge(w, op, active, passed, pc + 1);
        return Event::kSwitch;
      }
      continue;
    }
    if (!active) {
      ++pc;
      continue;
    }
    w.op = &op;
    switch (op.flow) {
      case Flow::kYield:
        op.run(w, op, active);
        ++pc;
        if (--turn <= 0 || (launch.random() & 7) == 0) return leave(Event::kYield);
        continue;
      case Flow::kExit:
        ++pc;
        leave(Event::kSwitch);
        exit_lanes(w, active);
        return Event::kSwitch;
      case Flow::kCall: enter_call(w, op, active, pc); return Event::kSwitch;
      case Flow::kReturn: return_from_call(w, active); return Event::kSwitch;
      case Flow::kCollective:
        if ((members(w, op, active) & w.live & ~active) == 0) {
          op.run(w, op, active);
          ++pc;
          continue;
        }
        break;
      case Flow::kWarpBarrier:
        if ((members(w, op, active) & w.live & ~active) == 0) {
          after_warp_barrier(w, active);
          ++pc;
          continue;
        }
        break;
      default:  // kCtaBarrier
        if ((op.variant & kBarKind) == kBarArrive && active == w.live) {
          arrive_at_barrier(*w.cta, w, op, active, false);
          ++pc;
          continue;
        }
        break;
    }
    if (active != mask)
      report(w, op, __builtin_ctz(mask & ~active),
             op.flow == Flow::kCtaBarrier ? FaultKind::kBarrier : FaultKind::kWarpSync,
             "a synchronising instruction under a guard that only some lanes of the group pass");
    leave(Event::kSwitch);
    w.groups[size_t(w.current)].state = Group::kWaiting;
    return Event::kSwitch;
  }
}

}  // namespace

void start_warp(Warp& w) {
  w.groups.clear();
  Group g;
  g.mask = w.live;
  w.groups.push_back(g);
  w.finished = w.live == 0;
  w.at_barrier = false;
  w.full_sync = 0;
  w.pair_sync.clear();
  w.copies.clear();
  std::fill_n(w.copy_group, kWarpSize, 0);
}

Stop run_warp(Warp& w) {
  int turn = kTurn;
  for (;;) {
    if (w.live == 0) {
      w.finished = true;
      return Stop::kFinished;
    }
    if (pick(w)) {
      if (run_group(w, turn) == Event::kYield) return Stop::kYielded;
      continue;
    }
    if (!release_parked(w)) report_stuck(w);
    if (w.at_barrier) return Stop::kBarrier;
  }
}

void release_from_barrier(Warp& w) {
  w.at_barrier = false;
  for (Group& g : w.groups)
    if (g.state == Group::kWaiting) {
      g.state = Group::kReady;
      ++g.pc;
    }
}

const Op& barrier_of(const Warp& w) {
  for (const Group& g : w.groups)
    if (g.state == Group::kWaiting) return op_at(w, g);
  return w.cta->launch->program->ops.back();
}

}  // namespace maestrale::ptxsim
