// SPDX-License-Identifier: Apache-2.0
// Allocation by bumping a pointer through a reserve several times the capacity; bit maps beside it.
#include "exec/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace maestrale::ptxsim {
namespace {

void* reserve(uint64_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return p;
}

uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

// Calls f(word index, mask) for the words of a bit map that hold bits [first, last).
template <class F>
void each_word(uint64_t first, uint64_t last, F f) {
  while (first < last) {
    const uint64_t word = first / 64, end = std::min(last, (word + 1) * 64);
    const uint64_t count = end - first;
    const uint64_t mask = (count == 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1) << (first % 64);
    f(word, mask);
    first = end;
  }
}

}  // namespace

DeviceMemory::DeviceMemory(uint64_t capacity)
    : capacity_(capacity), reserved_(round_up(capacity * 4 + (uint64_t{1} << 30), 1 << 20)) {
  data_ = static_cast<std::byte*>(reserve(reserved_));
  written_ = static_cast<uint64_t*>(reserve(reserved_ / 8));
  for (auto& map : sectors_) map = static_cast<uint64_t*>(reserve(reserved_ / kSector / 8));
}

DeviceMemory::~DeviceMemory() {
  munmap(data_, reserved_);
  munmap(written_, reserved_ / 8);
  for (auto* map : sectors_) munmap(map, reserved_ / kSector / 8);
}

uint64_t DeviceMemory::allocate(uint64_t bytes, bool is_module) {
  if (bytes == 0 || bytes > capacity_ || used_ + bytes > capacity_) return 0;
  const uint64_t size = round_up(bytes, kAlign) + kRedZone;
  uint64_t address = 0;
  if (next_ + size <= reserved_) {
    address = kDeviceBase + next_;
    next_ += size;
  } else {
    for (const auto& [begin, a] : allocations_)
      if (a.freed && a.bytes >= bytes) {
        address = begin;
        break;
      }
    if (address == 0) return 0;
  }
  allocations_[address] = {address, bytes, false, is_module, false};
  used_ += bytes;
  return address;
}

bool DeviceMemory::release(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end() || found->second.freed) return false;
  Allocation& a = found->second;
  a.freed = true;
  used_ -= a.bytes;
  each_word(a.begin - kDeviceBase, a.end() - kDeviceBase, [&](uint64_t w, uint64_t m) { written_[w] &= ~m; });
  // Whole pages go back to the host.
  const uint64_t begin = round_up(uint64_t(host(a.begin)), 4096), end = uint64_t(host(a.end())) / 4096 * 4096;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  return true;
}

const Allocation* DeviceMemory::nearest(uint64_t address) const {
  auto after = allocations_.upper_bound(address);
  return after == allocations_.begin() ? nullptr : &std::prev(after)->second;
}

const Allocation* DeviceMemory::find(uint64_t address) const {
  const Allocation* a = nearest(address);
  return a && !a->freed && address < a->end() ? a : nullptr;
}

bool DeviceMemory::written(uint64_t address, uint64_t bytes) const {
  const uint64_t first = address - kDeviceBase;
  bool all = true;
  each_word(first, first + bytes, [&](uint64_t w, uint64_t m) { all &= (written_[w] & m) == m; });
  return all;
}

void DeviceMemory::mark_written(uint64_t address, uint64_t bytes) {
  const uint64_t first = address - kDeviceBase;
  each_word(first, first + bytes, [&](uint64_t w, uint64_t m) { written_[w] |= m; });
}

void DeviceMemory::copy_written(uint64_t to, uint64_t from, uint64_t bytes) {
  const uint64_t t = to - kDeviceBase, f = from - kDeviceBase;
  for (uint64_t i = 0; i < bytes; ++i) {
    const uint64_t bit = written_[(f + i) / 64] >> ((f + i) % 64) & 1;
    uint64_t& word = written_[(t + i) / 64];
    word = (word & ~(uint64_t{1} << ((t + i) % 64))) | bit << ((t + i) % 64);
  }
}

uint64_t DeviceMemory::touch(int kind, const Allocation& a, uint64_t first, uint64_t last) {
  a.counted = true;
  uint64_t fresh = 0;
  each_word(first - kDeviceBase / kSector, last + 1 - kDeviceBase / kSector, [&](uint64_t w, uint64_t m) {
    fresh += uint64_t(__builtin_popcountll(m & ~sectors_[kind][w]));
    sectors_[kind][w] |= m;
  });
  return fresh;
}

void DeviceMemory::forget_sectors() {
  for (auto& [begin, a] : allocations_) {
    if (!a.counted) continue;
    a.counted = false;
    for (auto* map : sectors_)
      each_word((begin - kDeviceBase) / kSector, (a.end() - 1 - kDeviceBase) / kSector + 1,
                [&](uint64_t w, uint64_t m) { map[w] &= ~m; });
  }
}

}  // namespace maestrale::ptxsim
