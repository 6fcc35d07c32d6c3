// SPDX-License-Identifier: Apache-2.0
// Device and pinned host memory, copies and fills. A pageable host buffer is read when the call is made,
// a pinned one when the copy runs; a pinned destination holds poison until then.
#include <cstdlib>
#include <cstring>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

constexpr int kPoison = 0xdb;

Driver& driver() { return Driver::instance(); }

// Runs everything up to the work that was just put on `s`.
int finish(Stream& s, int result) {
  if (result != kSuccess) return result;
  driver().run_until([&] { return s.queue.empty(); });
  return kSuccess;
}

int copy_in(Stream& s, uint64_t to, const void* from, size_t bytes, bool synchronous) {
  Driver& d = driver();
  if (bytes == 0) return kSuccess;
  if (!from || !d.valid_range(to, bytes)) return kInvalidValue;
  const auto move = [to, bytes](const void* source) {
    std::memcpy(driver().memory->host(to), source, bytes);
    driver().memory->mark_written(to, bytes);
  };
  // Freed memory must not be touched by a copy that is still queued.
  const auto alive = [to, bytes] {
    if (driver().valid_range(to, bytes)) return true;
    driver().fail(kIllegalAddress, "a queued copy writes memory that was freed");
    return false;
  };
  if (synchronous || s.capture || d.is_pinned(from, bytes))
    return d.enqueue(s, [=] {
      if (alive()) move(from);
    });
  auto snapshot = std::make_shared<std::vector<char>>(static_cast<const char*>(from),
                                                      static_cast<const char*>(from) + bytes);
  return d.enqueue(s, [=] {
    if (alive()) move(snapshot->data());
  });
}

int copy_out(Stream& s, void* to, uint64_t from, size_t bytes) {
  Driver& d = driver();
  if (bytes == 0) return kSuccess;
  if (!to || !d.valid_range(from, bytes)) return kInvalidValue;
  const bool pinned = d.is_pinned(to, bytes);
  if (pinned && !s.capture) std::memset(to, kPoison, bytes);
  const int result = d.enqueue(s, [=] {
    if (!driver().valid_range(from, bytes))
      return driver().fail(kIllegalAddress, "a queued copy reads memory that was freed");
    std::memcpy(to, driver().memory->host(from), bytes);
    driver().bytes_to_host += bytes;
  });
  return pinned || s.capture ? result : finish(s, result);  // to pageable memory the call waits
}

int copy_within(Stream& s, uint64_t to, uint64_t from, size_t bytes) {
  Driver& d = driver();
  if (bytes == 0) return kSuccess;
  if (!d.valid_range(to, bytes) || !d.valid_range(from, bytes)) return kInvalidValue;
  return d.enqueue(s, [=] {
    if (!driver().valid_range(to, bytes) || !driver().valid_range(from, bytes))
      return driver().fail(kIllegalAddress, "a queued copy touches memory that was freed");
    std::memmove(driver().memory->host(to), driver().memory->host(from), bytes);
    driver().memory->copy_written(to, from, bytes);
  });
}

template <class T>
int fill(Stream& s, uint64_t to, T value, size_t count) {
  if (count == 0) return kSuccess;
  if (to % sizeof(T) || !driver().valid_range(to, count * sizeof(T))) return kInvalidValue;
  return driver().enqueue(s, [=] {
    if (!driver().valid_range(to, count * sizeof(T)))
      return driver().fail(kIllegalAddress, "a queued fill writes memory that was freed");
    T* at = reinterpret_cast<T*>(driver().memory->host(to));
    for (size_t i = 0; i < count; ++i) at[i] = value;
    driver().memory->mark_written(to, count * sizeof(T));
  });
}

// Synchronous calls may not be made while a capture could notice.
template <class F>
int on_legacy(F f) {
  if (const int bad = driver().refuse_in_capture()) return bad;
  Stream& legacy = current_context()->legacy;
  return finish(legacy, f(legacy));
}
template <class F>
int on_stream(void* handle, F f) {
  Stream* s = driver().stream(handle);
  return s ? f(*s) : kInvalidHandle;
}

}  // namespace

PTXSIM_API cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  return enter("cuMemGetInfo_v2", kContext, [&]() -> int {
    if (!free_bytes || !total) return kInvalidValue;
    *total = driver().memory->capacity();
    *free_bytes = *total - driver().memory->used();
    return kSuccess;
  });
}

PTXSIM_API cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  return enter("cuMemAlloc_v2", kContext, [&]() -> int {
    if (!address || bytes == 0) return kInvalidValue;
    if (const int bad = driver().refuse_in_capture()) return bad;
    if (driver().settings.fail_alloc > 0 && --driver().settings.fail_alloc == 0) return kOutOfMemory;
    *address = driver().memory->allocate(bytes);
    if (*address == 0) return kOutOfMemory;
    driver().allocations[*address] = current_context();
    return kSuccess;
  });
}

// Frees at once: queued work that still uses the memory is a defect that shows when it runs.
PTXSIM_API cuMemFree_v2(uint64_t address) {
  return enter("cuMemFree_v2", kContext, [&]() -> int {
    if (address == 0) return kSuccess;
    if (const int bad = driver().refuse_in_capture()) return bad;
    driver().allocations.erase(address);
    return driver().memory->release(address) ? kSuccess : kInvalidValue;
  });
}

static int host_alloc(void** p, size_t bytes) {
  if (!p || bytes == 0) return kInvalidValue;
  if (const int bad = driver().refuse_in_capture()) return bad;
  if (driver().settings.fail_alloc > 0 && --driver().settings.fail_alloc == 0) return kOutOfMemory;
  *p = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*p) return kOutOfMemory;
  std::memset(*p, kPoison, bytes);
  driver().pinned[reinterpret_cast<uintptr_t>(*p)] = bytes;
  driver().host_allocations[*p] = current_context();
  return kSuccess;
}

PTXSIM_API cuMemAllocHost_v2(void** p, size_t bytes) {
  return enter("cuMemAllocHost_v2", kContext, [&] { return host_alloc(p, bytes); });
}
PTXSIM_API cuMemHostAlloc(void** p, size_t bytes, unsigned flags) {
  return enter("cuMemHostAlloc", kContext,
               [&] { return flags > 7 ? int(kInvalidValue) : host_alloc(p, bytes); });
}

PTXSIM_API cuMemFreeHost(void* p) {
  return enter("cuMemFreeHost", kContext, [&]() -> int {
    if (driver().host_allocations.erase(p) == 0) return kInvalidValue;
    driver().run_until([] { return driver().idle(); });
    driver().pinned.erase(reinterpret_cast<uintptr_t>(p));
    std::free(p);
    return kSuccess;
  });
}

PTXSIM_API cuMemHostRegister_v2(void* p, size_t bytes, unsigned) {
  return enter("cuMemHostRegister_v2", kContext, [&]() -> int {
    if (!p || bytes == 0) return kInvalidValue;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(p);
    for (const auto& [at, size] : driver().pinned)
      if (begin < at + size && at < begin + bytes) return kHostMemoryAlreadyRegistered;
    driver().pinned[begin] = bytes;
    return kSuccess;
  });
}

PTXSIM_API cuMemHostUnregister(void* p) {
  return enter("cuMemHostUnregister", kContext, [&]() -> int {
    if (driver().host_allocations.count(p) || driver().pinned.erase(reinterpret_cast<uintptr_t>(p)) == 0)
      return kHostMemoryNotRegistered;
    return kSuccess;
  });
}

PTXSIM_API cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
  return enter("cuMemcpyHtoD_v2", kContext,
               [&] { return on_legacy([&](Stream& s) { return copy_in(s, to, from, bytes, true); }); });
}
PTXSIM_API cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
  return enter("cuMemcpyDtoH_v2", kContext,
               [&] { return on_legacy([&](Stream& s) { return copy_out(s, to, from, bytes); }); });
}
PTXSIM_API cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
  return enter("cuMemcpyDtoD_v2", kContext,
               [&] { return on_legacy([&](Stream& s) { return copy_within(s, to, from, bytes); }); });
}
PTXSIM_API cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
  return enter("cuMemcpyHtoDAsync_v2", kContext, [&] {
    return on_stream(stream, [&](Stream& s) { return copy_in(s, to, from, bytes, false); });
  });
}
PTXSIM_API cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
  return enter("cuMemcpyDtoHAsync_v2", kContext,
               [&] { return on_stream(stream, [&](Stream& s) { return copy_out(s, to, from, bytes); }); });
}
PTXSIM_API cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
  return enter("cuMemcpyDtoDAsync_v2", kContext,
               [&] { return on_stream(stream, [&](Stream& s) { return copy_within(s, to, from, bytes); }); });
}

PTXSIM_API cuMemsetD8_v2(uint64_t to, unsigned char value, size_t count) {
  return enter("cuMemsetD8_v2", kContext,
               [&] { return on_legacy([&](Stream& s) { return fill(s, to, value, count); }); });
}
PTXSIM_API cuMemsetD32_v2(uint64_t to, unsigned value, size_t count) {
  return enter("cuMemsetD32_v2", kContext,
               [&] { return on_legacy([&](Stream& s) { return fill(s, to, value, count); }); });
}
PTXSIM_API cuMemsetD8Async(uint64_t to, unsigned char value, size_t count, void* stream) {
  return enter("cuMemsetD8Async", kContext,
               [&] { return on_stream(stream, [&](Stream& s) { return fill(s, to, value, count); }); });
}
PTXSIM_API cuMemsetD32Async(uint64_t to, unsigned value, size_t count, void* stream) {
  return enter("cuMemsetD32Async", kContext,
               [&] { return on_stream(stream, [&](Stream& s) { return fill(s, to, value, count); }); });
}
