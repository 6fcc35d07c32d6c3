// SPDX-License-Identifier: Apache-2.0
// A launch and the thread blocks (CTAs) it is made of.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "exec/counters.h"
#include "exec/device_memory.h"
#include "exec/fault.h"
#include "exec/op.h"
#include "exec/race.h"
#include "exec/warp.h"

namespace maestrale::ptxsim {

enum class AsyncCopy : uint8_t { kLazy, kEager, kRandom };       // when cp.async moves its bytes
enum class Accumulate : uint8_t { kFloat, kDouble, kTruncate };  // how mma sums float products

struct Options {
  uint64_t seed = 1;
  bool check_races = true;
  bool check_uninitialised = true;
  bool count = true;
  bool perturb = false;  // approximate functions err by their documented maximum
  AsyncCopy async_copy = AsyncCopy::kRandom;
  Accumulate accumulate = Accumulate::kFloat;
  int resident_ctas = 4;  // run interleaved
  // Turns of the warps of a block after which the kernel counts as endless.
  uint64_t max_turns = uint64_t{1} << 24;
};

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
};

struct LaunchConfig {
  Dim3 grid, block;
  uint64_t dynamic_shared = 0;
  std::vector<std::byte> params;
  bool cooperative = false;  // all CTAs resident, so that they may wait for each other
};

struct Launch {
  const Program* program;
  DeviceMemory* memory;
  LaunchConfig config;
  Options options;
  Counters counters;
  std::string output;  // of printf
  std::mt19937_64 random;
  Clock clock;
  std::vector<const Allocation*> last_hit;  // per op
  std::unique_ptr<GlobalRaces> races;
  uint32_t sm_count = 16;
};

struct Barrier {
  uint32_t arrived_warps = 0;  // bit per warp: waiting or arrived
  uint32_t waiting_warps = 0;
  uint32_t predicate_or = 0, predicate_and = 1, predicate_count = 0;  // of bar.red
  uint32_t expected_threads = 0;                                      // 0: all that are alive
  bool open = false;                                                  // somebody came since it last completed
};

struct Cta {
  Launch* launch = nullptr;
  Counters* counters = nullptr;
  uint32_t number = 0;
  Dim3 id;
  std::vector<Warp> warps;
  std::vector<std::byte> registers;
  std::vector<std::byte> shared;
  std::vector<uint8_t> shared_written;
  SharedRaces shared_races;
  WarpClocks clocks;
  std::array<Barrier, 16> barriers;

  const Options& options() const { return launch->options; }
  uint32_t threads() const { return uint32_t(launch->config.block.count()); }
};

// Runs all CTAs; throws Fault.
void run(Launch& launch);

// Throws a Fault that names the kernel, the line, the thread and the block.
[[noreturn]] void report(const Warp& w, const Op& op, int lane, FaultKind kind, const std::string& what);

}  // namespace maestrale::ptxsim
