// SPDX-License-Identifier: Apache-2.0
// Large zeroed buffers straight from the kernel: pages are taken when they are first touched, and huge
// pages are asked for, since weights and caches are streamed.
#pragma once

#include <malloc.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"

namespace maestrale {

class Buffer {
 public:
  Buffer() = default;
  // Throws Error{kOutOfMemory} when the address space is refused. `what` completes "no memory for ...".
  Buffer(uint64_t bytes, const char* what) : bytes_(bytes) {
    if (bytes == 0) return;
    void* data =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
      throw Error(ErrorCode::kOutOfMemory, "no memory for " + std::string(what) + ": " +
                                               std::to_string(bytes) + " bytes were refused");
    data_ = static_cast<std::byte*>(data);
    constexpr uint64_t kHugePage = 2u << 20;
    if (bytes >= kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  }
  ~Buffer() {
    if (data_ != nullptr) munmap(data_, bytes_);
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Makes it at least `bytes` large, with a quarter to spare; what it held is lost then.
  void grow(uint64_t bytes, const char* what) {
    if (bytes_ < bytes) *this = Buffer(bytes + bytes / 4, what);
  }

  std::byte* data() const { return data_; }  // page aligned
  uint64_t bytes() const { return bytes_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Gives what malloc keeps of freed memory back to the system. glibc holds on to it arena by arena, and each
// load works on new threads, hence in other arenas: tens of megabytes after a few hundred loads. Takes
// milliseconds; for the end of large things.
inline void return_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace maestrale
