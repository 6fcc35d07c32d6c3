// SPDX-License-Identifier: Apache-2.0
// What a kernel did, summed over its launches.
#pragma once

#include <cstdint>
#include <string>

namespace maestrale::ptxsim {

struct Counters {
  uint64_t launches = 0;
  uint64_t warp_instructions = 0;
  uint64_t thread_instructions = 0;  // lanes whose guard held
  uint64_t divergent_branches = 0;
  // Global memory. Sectors have 32 bytes; "requested" counts the different ones of each warp
  // instruction, "unique" the different ones of the whole launch (the least a DRAM could move).
  uint64_t global_requests = 0;
  uint64_t global_bytes = 0;  // asked for by the lanes
  uint64_t sectors_requested = 0;
  uint64_t unique_read_sectors = 0;
  uint64_t unique_written_sectors = 0;
  // Shared memory. A wavefront serves each of the 32 banks once; ideal = without any conflict.
  uint64_t shared_requests = 0;
  uint64_t shared_wavefronts = 0;
  uint64_t shared_ideal_wavefronts = 0;
  uint64_t local_requests = 0;
  uint64_t mma = 0;   // warp instructions
  uint64_t dp4a = 0;  // thread instructions
  uint64_t shuffles = 0, votes = 0, barriers = 0, atomics = 0;
  uint64_t async_copies = 0;  // bytes moved by cp.async

  void add(const Counters& other);
  std::string json() const;  // one object, without the kernel's name
};

}  // namespace maestrale::ptxsim
