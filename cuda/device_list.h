// SPDX-License-Identifier: Apache-2.0
// The GPUs that the driver has, without opening one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace maestrale::cuda {

inline constexpr int kOldestCapability = 75;

struct DeviceFacts {
  std::string name;     // as its maker calls it
  int capability = 0;   // 75, 80, 86, ...
  uint64_t memory = 0;  // bytes, used ones included
  // What the driver tells of the memory; 0: it does not.
  uint64_t memory_bandwidth = 0;  // bytes a second at most
  uint64_t l2_cache = 0;          // bytes
};

struct DeviceList {
  int driver_version = 0;  // the latest CUDA it supports, 12040 for 12.4
  std::vector<DeviceFacts> devices;
};

// Throws as open_driver() does.
DeviceList list_devices();
int count_devices();

// Bytes a second of memory that moves two bits a clock on each of its wires; 0 where either is unknown.
constexpr uint64_t memory_bandwidth(int clock_khz, int bus_bits) {
  return uint64_t(clock_khz) * 1000 * 2 * uint64_t(bus_bits) / 8;
}

// Compute capability of a device, by its handle.
int compute_capability(int device);

}  // namespace maestrale::cuda
