// SPDX-License-Identifier: Apache-2.0
// One GPU: its primary context, a stream, memory and the module of kernels. Objects are used by one thread
// at a time; make_current() binds the context to the calling one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cuda/driver.h"

namespace maestrale::cuda {

class Device {
 public:
  // Throws Error{kDevice} when there is no such device or it is older than compute capability 7.5.
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  void make_current() const { MAESTRALE_CU(cuCtxSetCurrent, context_); }
  void synchronize() const { MAESTRALE_CU(cuStreamSynchronize, stream_); }
  Handle stream() const { return stream_; }
  int capability() const { return capability_; }  // 75, 80, 86, ...
  uint64_t free_memory() const;                   // bytes

 private:
  int device_ = 0;
  int capability_ = 0;
  Handle context_ = nullptr;
  Handle stream_ = nullptr;
};

// Memory of the device, freed with the object. Throws Error{kOutOfMemory} that says what it was for.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(const Device& device, uint64_t bytes, const char* purpose);
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = static_cast<DeviceBuffer&&>(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer() { release(); }

  DevicePointer address() const { return address_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void release() noexcept;
  DevicePointer address_ = 0;
  uint64_t bytes_ = 0;
};

// Pinned host memory, which the device copies from and to by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(uint64_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = static_cast<PinnedBuffer&&>(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer() { release(); }

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void release() noexcept;
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace maestrale::cuda
