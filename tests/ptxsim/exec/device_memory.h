// SPDX-License-Identifier: Apache-2.0
// The memory of the simulated device: one reserved stretch of host memory, of which pages come into
// being when touched. Every allocation has a red zone behind it; freed addresses are given out again
// only when no fresh ones are left, so that a use after free is seen. A bit for every byte tells
// whether it was ever written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "exec/memory_map.h"

namespace maestrale::ptxsim {

struct Allocation {
  uint64_t begin = 0, bytes = 0;
  bool freed = false;
  bool is_module = false;        // variables of a module; not a leak
  mutable bool counted = false;  // its sectors were marked in the running launch
  uint64_t end() const { return begin + bytes; }
};

class DeviceMemory {
 public:
  explicit DeviceMemory(uint64_t capacity);
  ~DeviceMemory();
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // 0 when the memory is exhausted.
  uint64_t allocate(uint64_t bytes, bool is_module = false);
  // False when nothing begins at `address`, or it is free already.
  bool release(uint64_t address);
  // The live allocation that holds `address`, or nullptr.
  const Allocation* find(uint64_t address) const;
  // The allocation (live or freed) that begins last before `address`; for messages.
  const Allocation* nearest(uint64_t address) const;
  const std::map<uint64_t, Allocation>& allocations() const { return allocations_; }

  std::byte* host(uint64_t address) const { return data_ + (address - kDeviceBase); }
  uint64_t capacity() const { return capacity_; }
  uint64_t used() const { return used_; }

  bool written(uint64_t address, uint64_t bytes) const;
  void mark_written(uint64_t address, uint64_t bytes);
  // Copies which bytes of `from` were written, as a device-to-device copy does.
  void copy_written(uint64_t to, uint64_t from, uint64_t bytes);

  // Marks 32-byte sectors first..last as touched (kind 0: read, 1: written); how many are new.
  uint64_t touch(int kind, const Allocation& a, uint64_t first, uint64_t last);
  void forget_sectors();

  static constexpr uint64_t kSector = 32;

 private:
  static constexpr uint64_t kAlign = 512, kRedZone = 512;
  uint64_t capacity_, reserved_, next_ = 0, used_ = 0;
  std::byte* data_;
  uint64_t* written_;
  uint64_t* sectors_[2];
  std::map<uint64_t, Allocation> allocations_;
};

}  // namespace maestrale::ptxsim
