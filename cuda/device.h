// SPDX-License-Identifier: Apache-2.0
// One GPU as one model sees it: a context of the model's own, a stream, memory. A failed kernel spoils its
// context for good; as nobody shares it, other models and other users of CUDA in the process go on, and
// loading the model again works. What has a stream is used by one thread at a time, memory by any;
// make_current() binds the context to the calling one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/driver.h"
#include "cuda/launches.h"

namespace maestrale::cuda {

class Device {
 public:
  // Throws Error{kDevice} when there is no such device or it is older than compute capability 7.5.
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Driver& driver() const { return driver_; }
  void make_current() const { MAESTRALE_CU(*this, cuCtxSetCurrent, context_); }
  // Those of the model's steps.
  Launches& launches() const { return *launches_; }
  void synchronize() const { launches_->synchronize(); }
  Handle context() const { return context_; }
  Handle stream() const { return launches_->stream(); }
  int capability() const { return capability_; }  // 75, 80, 86, ...
  int multiprocessors() const { return multiprocessors_; }
  uint64_t free_memory() const;  // bytes

 private:
  const Driver& driver_;
  int device_ = 0;
  int capability_ = 0, multiprocessors_ = 0;
  Handle context_ = nullptr;
  std::unique_ptr<Launches> launches_;
};

// Memory of the device, freed with the object, which the device must outlive. Throws Error{kOutOfMemory} that
// says what it was for.
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
  const Device* device_ = nullptr;
  DevicePointer address_ = 0;
  uint64_t bytes_ = 0;
};

// Pinned host memory, which the device copies from and to by itself.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(const Device& device, uint64_t bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = static_cast<PinnedBuffer&&>(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer() { release(); }

  std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void release() noexcept;
  const Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Zeros, which are there when it returns: at an address, or in memory of their own.
void put_zeros(const Device& device, DevicePointer address, uint64_t bytes);
DeviceBuffer zeros_on(const Device& device, uint64_t bytes, const char* purpose);

// Host memory and its copy on the device, as large as it has ever had to be.
class Upload {
 public:
  // What is held when at most `bytes` are asked for.
  static constexpr uint64_t capacity(uint64_t bytes) { return bytes + bytes / 2; }

  Upload(const Device& device, const char* purpose) : device_(device), purpose_(purpose) {}

  // Host memory for `bytes` that the stream no longer reads; waits for it if need be.
  std::byte* prepare(uint64_t bytes);
  // Copies the first `bytes` of it in the stream; says where they lie on the device.
  DevicePointer send(uint64_t bytes);
  // Told when the stream has been waited for.
  void landed() { in_flight_ = false; }

 private:
  const Device& device_;
  const char* purpose_;
  PinnedBuffer host_;
  DeviceBuffer copy_;
  bool in_flight_ = false;
};

}  // namespace maestrale::cuda
