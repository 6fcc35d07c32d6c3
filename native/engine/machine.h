// SPDX-License-Identifier: Apache-2.0
// What this machine offers to a model, for loading and for `maestrale doctor`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace maestrale {

struct GpuFacts {
  std::string name;               // as its maker calls it
  int capability = 0;             // compute capability, 75 for 7.5
  uint64_t memory = 0;            // bytes, used ones included
  bool usable = false;            // new enough
  uint64_t memory_bandwidth = 0;  // bytes a second that its memory can give; 0: the driver does not tell
};

// Of the kernel that decoding reads weights with.
struct GpuReadSpeed {
  uint64_t bytes = 0;    // of weights, each read once in a pass
  double seconds = 0.0;  // of a pass
};

struct Machine {
  int threads = 0;                      // CPUs this process may use
  uint64_t available_memory = 0;        // bytes
  double read_bandwidth = 0.0;          // bytes a second, of all threads together
  std::vector<std::string> isas;        // kernel tables, best first; all give the same bits
  std::vector<std::string> named_isas;  // those that are taken only when named, and give others
  std::vector<GpuFacts> gpus;           // cuda:0, cuda:1, ...
  int cuda_version = 0;                 // the latest that the driver supports, 12040 for 12.4
  std::string cuda_problem;             // why there is no CUDA; empty when there is
};

// Throws Error{kDevice} with the reason when there is no driver, or no CUDA back end in this build.
int count_cuda_devices();

// Takes a fraction of a second and some hundred MB for a moment: call it on a thread of its own. Throws
// Error{kOutOfMemory}.
Machine examine_machine();

// How fast cuda:ORDINAL reads weights. Takes a fraction of a second; throws Error{kDevice} or
// Error{kOutOfMemory}.
GpuReadSpeed measure_gpu(int ordinal);

}  // namespace maestrale
