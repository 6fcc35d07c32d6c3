// SPDX-License-Identifier: Apache-2.0
// A launch: thread blocks in random order, a few of them at a time, their warps in random turns; the
// barriers of a block; reports.
#include "exec/cta.h"

#include <algorithm>
#include <numeric>

#include "exec/schedule.h"
#include "exec/supplied.h"

namespace maestrale::ptxsim {
namespace {

Dim3 position(uint64_t number, const Dim3& size) {
  return {uint32_t(number % size.x), uint32_t(number / size.x % size.y), uint32_t(number / size.x / size.y)};
}

void fill(Warp& w, uint32_t slot, int bytes, uint64_t value) {
  if (bytes == 2) std::fill_n(w.reg<uint16_t>(slot), kWarpSize, uint16_t(value));
  if (bytes == 4) std::fill_n(w.reg<uint32_t>(slot), kWarpSize, uint32_t(value));
  if (bytes == 8) std::fill_n(w.reg<uint64_t>(slot), kWarpSize, value);
}

uint32_t component(const Dim3& d, char axis) { return axis == 'x' ? d.x : axis == 'y' ? d.y : d.z; }

void set_special(const Cta& cta, Warp& w, const Program::Special& s) {
  const Launch& launch = *cta.launch;
  const std::string& name = s.name;
  const char axis = name.back();
  uint32_t* v = w.reg<uint32_t>(s.slot);
  const auto all = [&](uint32_t value) { std::fill_n(v, kWarpSize, value); };
  const uint32_t warps = (cta.threads() + kWarpSize - 1) / kWarpSize;
  if (name.starts_with("%tid.")) {
    for (uint32_t i = 0; i < kWarpSize; ++i)
      v[i] = component(position(uint64_t(w.index) * kWarpSize + i, launch.config.block), axis);
  } else if (name.starts_with("%ntid.")) {
    all(component(launch.config.block, axis));
  } else if (name.starts_with("%ctaid.")) {
    all(component(cta.id, axis));
  } else if (name.starts_with("%nctaid.")) {
    all(component(launch.config.grid, axis));
  } else if (name == "%laneid") {
    std::iota(v, v + kWarpSize, 0u);
  } else if (name == "%warpid") {
    all(uint32_t(w.index));
  } else if (name == "%nwarpid") {
    all(warps);
  } else if (name == "%smid") {
    all(cta.number % launch.sm_count);
  } else if (name == "%nsmid") {
    all(launch.sm_count);
  } else if (name == "%dynamic_smem_size") {
    all(uint32_t(launch.config.dynamic_shared));
  } else if (name == "%total_smem_size") {
    all(uint32_t(cta.shared.size()));
  } else if (name.starts_with("%lanemask_")) {
    const std::string kind = name.substr(10);
    for (int i = 0; i < kWarpSize; ++i) {
      const uint32_t own = 1u << i, below = own - 1;
      v[i] = kind == "eq"   ? own
             : kind == "lt" ? below
             : kind == "le" ? below | own
             : kind == "gt" ? ~(below | own)
                            : ~below;
    }
  } else if (name == "%clock64" || name == "%globaltimer" || name == "%gridid") {
    fill(w, s.slot, 8, launch.counters.warp_instructions + 1);
  } else {  // %clock, %gridid as 32 bits and their like
    all(uint32_t(launch.counters.warp_instructions + 1));
  }
}

void start_cta(Cta& cta, uint32_t number) {
  Launch& launch = *cta.launch;
  const Program& program = *launch.program;
  cta.number = number;
  cta.id = position(number, launch.config.grid);
  std::fill(cta.shared.begin(), cta.shared.end(), std::byte{0xcd});
  std::fill(cta.shared_written.begin(), cta.shared_written.end(), 0);
  if (launch.options.check_races) cta.shared_races.reset(cta.shared.size());
  cta.clocks = {};
  cta.barriers = {};
  for (Warp& w : cta.warps) {
    const int64_t first = int64_t(w.index) * kWarpSize, threads = cta.threads();
    const int64_t here = std::clamp<int64_t>(threads - first, 0, kWarpSize);
    w.live = here == kWarpSize ? kAllLanes : (1u << here) - 1;
    for (const auto& s : program.specials) set_special(cta, w, s);
    std::fill(w.frame_written.begin(), w.frame_written.end(), 0);
    start_warp(w);
  }
}

std::unique_ptr<Cta> make_cta(Launch& launch) {
  auto cta = std::make_unique<Cta>();
  const Program& program = *launch.program;
  cta->launch = &launch;
  cta->counters = &launch.counters;
  const size_t warps = (launch.config.block.count() + kWarpSize - 1) / kWarpSize;
  const size_t stride = (program.register_bytes + 127) / 64 * 64;
  cta->registers.assign(warps * stride + 64, std::byte{0xcd});
  const size_t misaligned = reinterpret_cast<uintptr_t>(cta->registers.data()) % 64;
  std::byte* base = cta->registers.data() + (misaligned ? 64 - misaligned : 0);
  const int64_t shared = launch.config.dynamic_shared
                             ? program.dynamic_shared_at + int64_t(launch.config.dynamic_shared)
                             : program.shared_bytes;
  cta->shared.resize(size_t(shared));
  cta->shared_written.resize(size_t(shared));
  cta->warps.resize(warps);
  for (size_t i = 0; i < warps; ++i) {
    Warp& w = cta->warps[i];
    w.cta = cta.get();
    w.index = int(i);
    w.registers = base + i * stride;
    w.frame.assign(size_t(program.frame_bytes) * kWarpSize, std::byte{0xcd});
    w.frame_written.assign(w.frame.size(), 0);
    for (const auto& c : program.constants) fill(w, c.slot, c.bytes, c.bits);
  }
  return cta;
}

bool runnable(const Warp& w) { return !w.finished && !w.at_barrier; }

// Runs a random warp of the block for a turn. False when all have ended.
bool step(Cta& cta) {
  Warp* chosen = nullptr;
  uint64_t ready = 0;
  bool alive = false;
  for (Warp& w : cta.warps) {
    alive |= !w.finished;
    if (runnable(w) && cta.launch->random() % ++ready == 0) chosen = &w;
  }
  if (!alive) return false;
  if (!chosen) {
    std::string text;
    const Warp* first = nullptr;
    for (const Warp& w : cta.warps) {
      if (w.finished) continue;
      if (!first) first = &w;
      text += (text.empty() ? "" : ", ") + std::string("warp ") + std::to_string(w.index) + " at line " +
              std::to_string(barrier_of(w).line);
    }
    report(*first, barrier_of(*first), 0, FaultKind::kDeadlock,
           "no warp can go on; waiting at barriers: " + text);
  }
  if (run_warp(*chosen) == Stop::kFinished) {
    // Barriers that waited for this warp alone are complete now. It has synchronised with nobody.
    complete_barriers(cta);
    if (!chosen->copies.empty())
      report(*chosen, *chosen->copies.front().op, chosen->copies.front().lane, FaultKind::kRace,
             "the thread ended with an asynchronous copy that nobody waited for");
  }
  return true;
}

}  // namespace

void arrive_at_barrier(Cta& cta, Warp& w, const Op& op, uint32_t mask, bool waits) {
  const int lane = __builtin_ctz(mask);
  const uint32_t id = w.reg<uint32_t>(op.src[0])[lane];
  if (id > 15)
    report(w, op, lane, FaultKind::kBarrier,
           "barrier " + std::to_string(id) + " does not exist; there are 16");
  const uint32_t expected = op.src[1] == kNoSlot ? 0 : w.reg<uint32_t>(op.src[1])[lane];
  if (expected % kWarpSize)
    report(w, op, lane, FaultKind::kBarrier, "a barrier's thread count must be a multiple of 32");
  Barrier& b = cta.barriers[id];
  if (!b.open) b = Barrier{};
  if (b.open && b.expected_threads != expected)
    report(w, op, lane, FaultKind::kBarrier,
           "warps come to barrier " + std::to_string(id) + " with different thread counts");
  b.open = true;
  b.expected_threads = expected;
  b.arrived_warps |= 1u << w.index;
  if (waits) b.waiting_warps |= 1u << w.index;
  if (op.src[2] != kNoSlot) {
    const uint32_t on = (w.pred(op.src[2]) ^ (op.imm ? kAllLanes : 0)) & mask;
    b.predicate_or |= on != 0;
    b.predicate_and &= on == mask;
    b.predicate_count += uint32_t(__builtin_popcount(on));
  }
  ++cta.counters->barriers;
  complete_barriers(cta);
}

void complete_barriers(Cta& cta) {
  uint32_t alive = 0;
  for (const Warp& w : cta.warps) alive |= uint32_t(!w.finished && w.live != 0) << w.index;
  for (Barrier& b : cta.barriers) {
    if (!b.open) continue;
    const bool complete =
        b.expected_threads ? uint32_t(__builtin_popcount(b.arrived_warps)) * kWarpSize >= b.expected_threads
                           : (alive & ~b.arrived_warps) == 0;
    if (!complete) continue;
    const uint32_t now = cta.launch->clock.tick();
    cta.clocks.meet(b.arrived_warps, b.waiting_warps, now);
    for (uint32_t rest = b.waiting_warps; rest; rest &= rest - 1) {
      Warp& w = cta.warps[size_t(__builtin_ctz(rest))];
      w.full_sync = now;
      const Op& op = barrier_of(w);
      const int kind = op.variant & kBarKind;
      if (kind == kBarPopc) lanes(w.reg<uint32_t>(op.dst), w.live, [&](int) { return b.predicate_count; });
      if (kind == kBarAnd) set_pred(w.pred(op.dst), w.live, b.predicate_and ? kAllLanes : 0);
      if (kind == kBarOr) set_pred(w.pred(op.dst), w.live, b.predicate_or ? kAllLanes : 0);
      release_from_barrier(w);
    }
    b = Barrier{};
  }
}

void run(Launch& launch) {
  const uint64_t total = launch.config.grid.count();
  launch.random.seed(launch.options.seed);
  launch.last_hit.assign(launch.program->ops.size(), nullptr);
  launch.clock = {};
  launch.races = launch.options.check_races ? std::make_unique<GlobalRaces>() : nullptr;
  ++launch.counters.launches;
  std::vector<uint32_t> order(total);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), launch.random);

  const uint64_t resident =
      launch.config.cooperative ? total : std::min<uint64_t>(total, uint64_t(launch.options.resident_ctas));
  std::vector<std::unique_ptr<Cta>> ctas;
  std::vector<uint64_t> turns;
  uint64_t next = 0;
  for (uint64_t i = 0; i < resident; ++i) {
    ctas.push_back(make_cta(launch));
    start_cta(*ctas.back(), order[next++]);
    turns.push_back(0);
  }
  while (!ctas.empty()) {
    const size_t k = launch.random() % ctas.size();
    if (++turns[k] > launch.options.max_turns)
      report(ctas[k]->warps[0], launch.program->ops[0], 0, FaultKind::kDeadlock, "the kernel does not end");
    if (step(*ctas[k])) continue;
    turns[k] = 0;
    if (next < total) {
      start_cta(*ctas[k], order[next++]);
    } else {
      ctas.erase(ctas.begin() + int64_t(k));
      turns.pop_back();
    }
  }
  launch.memory->forget_sectors();
}

void report(const Warp& w, const Op& op, int lane, FaultKind kind, const std::string& what) {
  const Launch& launch = *w.cta->launch;
  const Dim3 t = position(uint64_t(w.index) * kWarpSize + uint64_t(lane), launch.config.block);
  const auto triple = [](const Dim3& d) {
    return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
  };
  std::string where = launch.program->name + ", line " + std::to_string(op.line);
  if (op.source_line) where += " (source line " + std::to_string(op.source_line) + ")";
  throw Fault(kind, where + ", block " + triple(w.cta->id) + ", thread " + triple(t) + ": " + what);
}

}  // namespace maestrale::ptxsim
