// SPDX-License-Identifier: Apache-2.0
// Bounds, alignment, initialisation, races; sectors and bank conflicts.
#include "exec/memory.h"

#include <algorithm>
#include <cstdio>

#include "exec/decoder.h"

namespace maestrale::ptxsim {
namespace {

std::string hex(uint64_t x) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(x));
  return text;
}

bool is_load(AccessKind k) {
  return k == AccessKind::kLoad || k == AccessKind::kVolatileLoad || k == AccessKind::kAtomic;
}
bool is_store(AccessKind k) {
  return k == AccessKind::kStore || k == AccessKind::kVolatileStore || k == AccessKind::kAtomic;
}
const char* verb(AccessKind k) {
  return k == AccessKind::kAtomic ? "atomic access to" : is_load(k) ? "reads" : "writes";
}

// The host's address of every lane, of masked ones too, whose register may hold anything: computed as
// integers, because only the pointers of lanes in the mask point into the memory.
void point(Resolved& r, const std::byte* base, const Lanes64& address, uint64_t origin) {
  const uint64_t shift = reinterpret_cast<uintptr_t>(base) - origin;
  for (int i = 0; i < kWarpSize; ++i) r.at[i] = reinterpret_cast<std::byte*>(shift + address.v[i]);
}

struct Extent {
  uint64_t low = ~uint64_t{0}, high = 0;
  bool aligned = true, contiguous = false;
};

Extent extent(const Lanes64& address, uint32_t mask, uint32_t width) {
  Extent e;
  uint64_t bits = 0;
  if (mask == kAllLanes) {
    bool run = true;
    for (int i = 0; i < kWarpSize; ++i) {
      bits |= address.v[i];
      e.low = std::min(e.low, address.v[i]);
      e.high = std::max(e.high, address.v[i]);
      run &= address.v[i] == address.v[0] + uint64_t(i) * width;
    }
    e.contiguous = run;
  } else {
    each_lane(mask, [&](int i) {
      bits |= address.v[i];
      e.low = std::min(e.low, address.v[i]);
      e.high = std::max(e.high, address.v[i]);
    });
  }
  e.aligned = (bits & (width - 1)) == 0;
  return e;
}

void check_alignment(Warp& w, const Op& op, uint32_t mask, const Lanes64& address, uint32_t width,
                     const char* space) {
  each_lane(mask, [&](int i) {
    if (address.v[i] & (width - 1))
      report(w, op, i, FaultKind::kMisaligned,
             std::string("misaligned access of ") + std::to_string(width) + " bytes at " + hex(address.v[i]) +
                 " in " + space + " memory");
  });
}

[[noreturn]] void out_of_bounds(Warp& w, const Op& op, int lane, uint64_t address, uint32_t width,
                                AccessKind kind) {
  std::string text = std::string(verb(kind)) + " " + std::to_string(width) + " bytes at " + hex(address) +
                     " in global memory, ";
  const Allocation* a = w.cta->launch->memory->nearest(address);
  if (!a)
    text += "where nothing is allocated";
  else if (a->freed && address < a->end())
    text += "which was freed";
  else
    text += std::to_string(int64_t(address - a->end())) + " bytes behind the end of an allocation of " +
            std::to_string(a->bytes);
  report(w, op, lane, FaultKind::kOutOfBounds, text);
}

// Different 32-byte sectors of a warp instruction; marks them as touched in the launch.
void count_sectors(Launch& launch, const Allocation* one, const Lanes64& address, const Extent& e,
                   uint32_t mask, uint32_t width, AccessKind kind) {
  constexpr uint64_t kSector = DeviceMemory::kSector;
  Counters& c = launch.counters;
  DeviceMemory& memory = *launch.memory;
  ++c.global_requests;
  c.global_bytes += uint64_t(__builtin_popcount(mask)) * width;
  const auto touch = [&](const Allocation& a, uint64_t first, uint64_t last) {
    if (is_load(kind)) c.unique_read_sectors += memory.touch(0, a, first, last);
    if (is_store(kind)) c.unique_written_sectors += memory.touch(1, a, first, last);
  };
  if (e.contiguous || e.low == e.high) {
    const uint64_t first = e.low / kSector, last = (e.high + width - 1) / kSector;
    c.sectors_requested += last - first + 1;
    return touch(*one, first, last);
  }
  uint64_t sectors[kWarpSize];
  int n = 0;
  each_lane(mask, [&](int i) {
    const uint64_t sector = address.v[i] / kSector;  // aligned: never more than one
    for (int k = n; k-- > 0;)
      if (sectors[k] == sector) return;
    sectors[n++] = sector;
    touch(one ? *one : *memory.find(address.v[i]), sector, sector);
  });
  c.sectors_requested += uint64_t(n);
}

Resolved resolve_global(Warp& w, const Op& op, uint32_t mask, const Lanes64& address, uint32_t width,
                        AccessKind kind) {
  Launch& launch = *w.cta->launch;
  DeviceMemory& memory = *launch.memory;
  const Extent e = extent(address, mask, width);
  if (!e.aligned) check_alignment(w, op, mask, address, width, "global");
  const Allocation*& hit = launch.last_hit[size_t(&op - launch.program->ops.data())];
  const Allocation* one = hit;
  if (!one || e.low < one->begin || e.high + width > one->end()) {
    one = nullptr;
    each_lane(mask, [&](int i) {
      const Allocation* a = memory.find(address.v[i]);
      if (!a || address.v[i] + width > a->end()) out_of_bounds(w, op, i, address.v[i], width, kind);
      hit = a;
    });
    if (e.low >= hit->begin && e.high + width <= hit->end()) one = hit;
  }
  Resolved r;
  r.contiguous = e.contiguous && one;
  point(r, memory.host(kDeviceBase), address, kDeviceBase);
  if (launch.options.count)
    count_sectors(launch, one, address, r.contiguous ? e : Extent{e.low, e.high, true, false}, mask, width,
                  kind);
  if (launch.options.check_uninitialised && is_load(kind)) {
    if (!(r.contiguous && memory.written(e.low, uint64_t(width) * kWarpSize)))
      each_lane(mask, [&](int i) {
        if (!memory.written(address.v[i], width))
          report(w, op, i, FaultKind::kUninitialised,
                 "reads " + std::to_string(width) + " bytes of global memory at " + hex(address.v[i]) +
                     " that nobody wrote");
      });
  }
  if (is_store(kind)) {
    if (r.contiguous)
      memory.mark_written(e.low, uint64_t(width) * kWarpSize);
    else
      each_lane(mask, [&](int i) { memory.mark_written(address.v[i], width); });
  }
  if (launch.races) {
    const bool quiet = kind == AccessKind::kLoad && one && e.high - e.low < 4096 &&
                       !launch.races->any_write_near(e.low) && !launch.races->any_write_near(e.high);
    if (!quiet) each_lane(mask, [&](int i) { launch.races->access(w, op, i, address.v[i], width, kind); });
  }
  return r;
}

// Banks are 4 bytes wide. Wider accesses are served in halves or quarters of the warp.
void count_banks(Counters& c, const Lanes64& address, uint32_t mask, uint32_t width) {
  ++c.shared_requests;
  const int parts = width >= 16 ? 4 : width >= 8 ? 2 : 1, lanes_of_part = kWarpSize / parts;
  const uint32_t words = width > 4 ? width / 4 : 1;
  for (int part = 0; part < parts; ++part) {
    uint32_t taken[32][kWarpSize];  // different words of a bank
    uint8_t count[32] = {};
    int most = 0;
    for (int i = part * lanes_of_part; i < (part + 1) * lanes_of_part; ++i) {
      if (!(mask >> i & 1)) continue;
      for (uint32_t k = 0; k < words; ++k) {
        const uint32_t word = uint32_t(address.v[i] / 4) + k, bank = word % 32;
        bool known = false;
        for (int j = 0; j < count[bank]; ++j) known |= taken[bank][j] == word;
        if (known) continue;
        taken[bank][count[bank]++] = word;
        most = std::max(most, int(count[bank]));
      }
    }
    if (most == 0) continue;
    c.shared_wavefronts += uint64_t(most);
    ++c.shared_ideal_wavefronts;
  }
}

Resolved resolve_shared(Warp& w, const Op& op, uint32_t mask, const Lanes64& address, uint32_t width,
                        AccessKind kind) {
  Cta& cta = *w.cta;
  const Extent e = extent(address, mask, width);
  if (!e.aligned) check_alignment(w, op, mask, address, width, "shared");
  if (e.high + width > cta.shared.size() || e.high + width < e.high)
    each_lane(mask, [&](int i) {
      if (address.v[i] >= cta.shared.size() || address.v[i] + width > cta.shared.size())
        report(w, op, i, FaultKind::kOutOfBounds,
               std::string(verb(kind)) + " " + std::to_string(width) + " bytes at offset " +
                   hex(address.v[i]) + " of " + std::to_string(cta.shared.size()) +
                   " bytes of shared memory");
    });
  Resolved r;
  r.contiguous = e.contiguous;
  point(r, cta.shared.data(), address, 0);
  const Options& options = cta.options();
  if (options.count) {
    if (e.contiguous || e.low == e.high) {
      ++cta.counters->shared_requests;
      const uint64_t parts = width >= 16 ? 4 : width >= 8 ? 2 : 1;
      const uint64_t waves = e.contiguous ? parts : 1;
      cta.counters->shared_wavefronts += waves;
      cta.counters->shared_ideal_wavefronts += waves;
    } else {
      count_banks(*cta.counters, address, mask, width);
    }
  }
  // Before the check for unwritten bytes: a pending asynchronous copy explains more.
  if (options.check_races)
    each_lane(mask, [&](int i) { cta.shared_races.access(w, op, i, uint32_t(address.v[i]), width, kind); });
  if (options.check_uninitialised && is_load(kind))
    each_lane(mask, [&](int i) {
      for (uint32_t k = 0; k < width; ++k)
        if (!cta.shared_written[address.v[i] + k])
          report(w, op, i, FaultKind::kUninitialised,
                 "reads shared memory at offset " + std::to_string(address.v[i] + k) +
                     " that no thread of the block wrote");
    });
  if (is_store(kind))
    each_lane(mask, [&](int i) {
      std::fill_n(cta.shared_written.begin() + int64_t(address.v[i]), width, uint8_t(1));
    });
  return r;
}

Resolved resolve_local(Warp& w, const Op& op, uint32_t mask, const Lanes64& address, uint32_t width,
                       AccessKind kind) {
  const uint64_t size = uint64_t(w.cta->launch->program->frame_bytes);
  Resolved r;
  ++w.cta->counters->local_requests;
  check_alignment(w, op, mask, address, width, "local");
  each_lane(mask, [&](int i) {
    if (address.v[i] >= size || address.v[i] + width > size)
      report(w, op, i, FaultKind::kOutOfBounds,
             std::string(verb(kind)) + " local memory at " + hex(address.v[i]) + ", the thread has " +
                 std::to_string(size) + " bytes");
    const uint64_t at = uint64_t(i) * size + address.v[i];
    r.at[i] = w.frame.data() + at;
    if (is_store(kind))
      std::fill_n(w.frame_written.begin() + int64_t(at), width, uint8_t(1));
    else if (w.cta->options().check_uninitialised &&
             std::count(w.frame_written.begin() + int64_t(at), w.frame_written.begin() + int64_t(at + width),
                        0))
      report(w, op, i, FaultKind::kUninitialised,
             "reads local memory at " + hex(address.v[i]) + " that it never wrote");
  });
  return r;
}

Resolved resolve_param(Warp& w, const Op& op, uint32_t mask, const Lanes64& address, uint32_t width,
                       AccessKind kind) {
  const std::vector<std::byte>& params = w.cta->launch->config.params;
  if (address.v[__builtin_ctz(mask)] >= kFrameParams) {
    Lanes64 frame = address;
    each_lane(mask, [&](int i) { frame.v[i] -= kFrameParams; });
    return resolve_local(w, op, mask, frame, width, kind);
  }
  check_alignment(w, op, mask, address, width, "parameter");
  Resolved r;
  each_lane(mask, [&](int i) {
    if (is_store(kind) || address.v[i] >= params.size() || address.v[i] + width > params.size())
      report(w, op, i, FaultKind::kOutOfBounds,
             std::string(verb(kind)) + " parameter memory at " + hex(address.v[i]) + " of " +
                 std::to_string(params.size()) + " bytes");
    r.at[i] = const_cast<std::byte*>(params.data()) + address.v[i];
  });
  return r;
}

}  // namespace

Lanes64 addresses(const Warp& w, uint32_t base, bool base_is_32_bits, int64_t offset) {
  Lanes64 a;
  if (base_is_32_bits) {
    const uint32_t* b = w.reg<uint32_t>(base);
    for (int i = 0; i < kWarpSize; ++i) a.v[i] = uint32_t(b[i] + uint32_t(offset));
  } else {
    const uint64_t* b = w.reg<uint64_t>(base);
    for (int i = 0; i < kWarpSize; ++i) a.v[i] = b[i] + uint64_t(offset);
  }
  return a;
}

Resolved resolve(Warp& w, const Op& op, uint32_t mask, Space space, const Lanes64& address, uint32_t width,
                 AccessKind kind) {
  switch (space) {
    case Space::kShared: return resolve_shared(w, op, mask, address, width, kind);
    case Space::kLocal: return resolve_local(w, op, mask, address, width, kind);
    case Space::kParam: return resolve_param(w, op, mask, address, width, kind);
    default: return resolve_global(w, op, mask, address, width, kind);
  }
}

}  // namespace maestrale::ptxsim
