// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "cuda/device_list.h"

namespace maestrale::cuda {
namespace {

constexpr int kMultiprocessors = 16;  // CUdevice_attribute

}  // namespace

Device::Device(int ordinal) : driver_(open_driver()) {
  const int count = count_devices();
  const std::string name = "device 'cuda:" + std::to_string(ordinal) + "'";
  if (ordinal >= count)
    throw Error(ErrorCode::kDevice,
                name + " does not exist: there " +
                    (count == 1 ? "is 1 CUDA device" : "are " + std::to_string(count) + " CUDA devices"));
  MAESTRALE_CU(*this, cuDeviceGet, &device_, ordinal);
  capability_ = compute_capability(device_);
  if (capability_ < kOldestCapability)
    throw Error(ErrorCode::kDevice, name + " has compute capability " + std::to_string(capability_ / 10) +
                                        "." + std::to_string(capability_ % 10) + ", but 7.5 is needed");
  MAESTRALE_CU(*this, cuDeviceGetAttribute, &multiprocessors_, kMultiprocessors, device_);
  MAESTRALE_CU(*this, cuCtxCreate_v2, &context_, 0, device_);
  try {
    launches_ = std::make_unique<Launches>(*this);
  } catch (...) {
    driver_.cuCtxDestroy_v2(context_);
    throw;
  }
}

Device::~Device() {
  driver_.cuCtxSetCurrent(context_);
  launches_.reset();
  driver_.cuCtxDestroy_v2(context_);
}

uint64_t Device::free_memory() const {
  size_t free_bytes = 0, total = 0;
  make_current();
  MAESTRALE_CU(*this, cuMemGetInfo_v2, &free_bytes, &total);
  return free_bytes;
}

DeviceBuffer::DeviceBuffer(const Device& device, uint64_t bytes, const char* purpose)
    : device_(&device), bytes_(std::max<uint64_t>(bytes, 1)) {
  device.make_current();
  try {
    MAESTRALE_CU(device, cuMemAlloc_v2, &address_, size_t(bytes_));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kOutOfMemory) throw;
    throw Error(ErrorCode::kOutOfMemory, "the GPU has no room for " + std::to_string(bytes_ >> 20) +
                                             " MiB of " + purpose + "; " +
                                             std::to_string(device.free_memory() >> 20) + " MiB are free");
  }
}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

// A failure is the device's own, which its next operation reports; its memory goes with the context.
void DeviceBuffer::release() noexcept {
  if (address_ == 0) return;
  device_->driver().cuCtxSetCurrent(device_->context());
  device_->driver().cuMemFree_v2(address_);
}

PinnedBuffer::PinnedBuffer(const Device& device, uint64_t bytes) : device_(&device), bytes_(bytes) {
  void* data = nullptr;
  device.make_current();
  MAESTRALE_CU(device, cuMemAllocHost_v2, &data, size_t(bytes));
  data_ = static_cast<std::byte*>(data);
}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void PinnedBuffer::release() noexcept {
  if (data_ == nullptr) return;
  device_->driver().cuCtxSetCurrent(device_->context());
  device_->driver().cuMemFreeHost(data_);
}

void put_zeros(const Device& device, DevicePointer address, uint64_t bytes) {
  const PinnedBuffer zeros(device, bytes);
  std::memset(zeros.data(), 0, bytes);
  MAESTRALE_CU(device, cuMemcpyHtoDAsync_v2, address, zeros.data(), bytes, device.stream());
  device.synchronize();
}

DeviceBuffer zeros_on(const Device& device, uint64_t bytes, const char* purpose) {
  DeviceBuffer buffer(device, bytes, purpose);
  put_zeros(device, buffer.address(), bytes);
  return buffer;
}

std::byte* Upload::prepare(uint64_t bytes) {
  if (in_flight_) device_.synchronize();
  in_flight_ = false;
  if (host_.bytes() < bytes) {
    host_ = {};
    copy_ = {};
    host_ = PinnedBuffer(device_, capacity(bytes));
    copy_ = DeviceBuffer(device_, capacity(bytes), purpose_);
  }
  return host_.data();
}

DevicePointer Upload::send(uint64_t bytes) {
  MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, copy_.address(), host_.data(), size_t(bytes), device_.stream());
  in_flight_ = true;
  return copy_.address();
}

}  // namespace maestrale::cuda
