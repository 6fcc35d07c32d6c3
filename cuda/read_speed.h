// SPDX-License-Identifier: Apache-2.0
// How fast a GPU reads weights with the kernel that decoding one sequence reads them with: what bounds its
// tokens a second, beside what its memory could give.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/kernel_module.h"
#include "cuda/matmul_args.h"

namespace maestrale::cuda {

struct ReadSpeed {
  uint64_t bytes = 0;    // of weights, each read once in a pass
  double seconds = 0.0;  // of a pass, by the host's clock
};

// Weights of Q4_K as gate and up of a 7B model have them, of any values, and passes of matmul_row over all.
class WeightReader {
 public:
  // At least `bytes` of weights, in whole stripes. Throws Error{kOutOfMemory}.
  WeightReader(const Device& device, const KernelModule& module, uint64_t bytes);

  uint64_t bytes() const { return weights_.bytes(); }
  // What `passes` passes take: the shortest of some tries.
  double seconds(int passes) const;

 private:
  void fill() const;
  void launch_pass() const;

  const Device& device_;
  Kernel<MatmulArgs> matmul_row_;
  int64_t stripes_;
  DeviceBuffer weights_, records_, out_;
};

// Opens the device for a moment and takes at most half of the memory that is free. Throws Error{kDevice}, or
// Error{kOutOfMemory} where that is too little to tell memory from cache.
ReadSpeed measure_read_speed(int ordinal);

}  // namespace maestrale::cuda
