// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CUdevice_attribute
constexpr unsigned kNonBlockingStream = 1;

int attribute(int device, int which) {
  int value = 0;
  MAESTRALE_CU(cuDeviceGetAttribute, &value, which, device);
  return value;
}

}  // namespace

Device::Device(int ordinal) {
  int count = 0;
  MAESTRALE_CU(cuDeviceGetCount, &count);
  if (ordinal >= count)
    throw Error(ErrorCode::kDevice,
                "device 'cuda:" + std::to_string(ordinal) + "' does not exist: there " +
                    (count == 1 ? "is 1 CUDA device" : "are " + std::to_string(count) + " CUDA devices"));
  MAESTRALE_CU(cuDeviceGet, &device_, ordinal);
  capability_ = 10 * attribute(device_, kCapabilityMajor) + attribute(device_, kCapabilityMinor);
  if (capability_ < 75)
    throw Error(ErrorCode::kDevice, "device 'cuda:" + std::to_string(ordinal) + "' has compute capability " +
                                        std::to_string(capability_ / 10) + "." +
                                        std::to_string(capability_ % 10) + ", but 7.5 is needed");
  MAESTRALE_CU(cuDevicePrimaryCtxRetain, &context_, device_);
  try {
    make_current();
    MAESTRALE_CU(cuStreamCreate, &stream_, kNonBlockingStream);
  } catch (...) {
    driver().cuDevicePrimaryCtxRelease_v2(device_);
    throw;
  }
}

Device::~Device() {
  driver().cuCtxSetCurrent(context_);
  driver().cuStreamDestroy_v2(stream_);
  driver().cuCtxSetCurrent(nullptr);
  driver().cuDevicePrimaryCtxRelease_v2(device_);
}

uint64_t Device::free_memory() const {
  size_t free_bytes = 0, total = 0;
  make_current();
  MAESTRALE_CU(cuMemGetInfo_v2, &free_bytes, &total);
  return free_bytes;
}

DeviceBuffer::DeviceBuffer(const Device& device, uint64_t bytes, const char* purpose) {
  device.make_current();
  bytes_ = std::max<uint64_t>(bytes, 1);
  try {
    MAESTRALE_CU(cuMemAlloc_v2, &address_, size_t(bytes_));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    throw Error(ErrorCode::kOutOfMemory, "the GPU has no room for " + std::to_string(bytes_ >> 20) +
                                             " MiB of " + purpose + "; " +
                                             std::to_string(device.free_memory() >> 20) + " MiB are free");
  }
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

// A failure is the device's own, which its next operation reports.
void DeviceBuffer::release() noexcept {
  if (address_ != 0) driver().cuMemFree_v2(address_);
}

PinnedBuffer::PinnedBuffer(uint64_t bytes) : bytes_(bytes) {
  void* data = nullptr;
  MAESTRALE_CU(cuMemAllocHost_v2, &data, size_t(bytes));
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void PinnedBuffer::release() noexcept {
  if (data_ != nullptr) driver().cuMemFreeHost(data_);
}

}  // namespace maestrale::cuda
