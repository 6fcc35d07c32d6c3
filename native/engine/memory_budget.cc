// SPDX-License-Identifier: Apache-2.0
#include "engine/memory_budget.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/integer.h"

namespace maestrale {
namespace {

// The number in a file that holds one; nothing for "max" or a missing file.
std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream in(path);
  uint64_t value = 0;
  if (in >> value) return value;
  return std::nullopt;
}

// The number after `key` in a file of "key number" lines.
std::optional<uint64_t> read_field(const std::string& path, const std::string& key) {
  std::ifstream in(path);
  for (std::string word, line; in >> word; std::getline(in, line)) {
    uint64_t value = 0;
    if (word == key && in >> value) return value;
  }
  return std::nullopt;
}

// What a cgroup leaves: its limit less its use, of which file pages that nobody reads can go.
std::optional<uint64_t> cgroup_rest(const std::string& limit_file, const std::string& use_file,
                                    const std::string& stat_file) {
  const auto limit = read_number(limit_file), use = read_number(use_file);
  if (!limit || !use) return std::nullopt;
  const uint64_t reclaimable = read_field(stat_file, "inactive_file").value_or(0);
  const uint64_t held = *use - std::min(*use, reclaimable);
  return *limit - std::min(*limit, held);
}

}  // namespace

uint64_t available_memory() {
  constexpr uint64_t kUnknown = uint64_t(1) << 50;
  uint64_t bytes = kUnknown;
  if (const auto kib = read_field("/proc/meminfo", "MemAvailable:")) bytes = *kib * 1024;
  // Inside a container the process's own group is mounted at the root of the tree.
  const std::string v2 = "/sys/fs/cgroup/", v1 = "/sys/fs/cgroup/memory/";
  if (const auto rest = cgroup_rest(v2 + "memory.max", v2 + "memory.current", v2 + "memory.stat"))
    bytes = std::min(bytes, *rest);
  if (const auto rest =
          cgroup_rest(v1 + "memory.limit_in_bytes", v1 + "memory.usage_in_bytes", v1 + "memory.stat"))
    bytes = std::min(bytes, *rest);
  return bytes;
}

int64_t kv_pages_within(uint64_t available, uint64_t page_bytes, int64_t pages_per_sequence,
                        int32_t max_sequences) {
  const uint64_t fitting = available / 5 * 4 / page_bytes;
  if (fitting == 0)
    throw Error(ErrorCode::kOutOfMemory, "one KV page takes " + std::to_string(page_bytes) + " bytes, but " +
                                             std::to_string(available) + " bytes of memory are left");
  constexpr uint64_t kMostPages = uint64_t(1) << 30;  // PageId is 32 bits wide
  const uint64_t wanted = uint64_t(pages_per_sequence) * uint64_t(max_sequences);
  return int64_t(std::min({fitting, wanted, kMostPages}));
}

uint64_t memory_for_pages(uint64_t page_bytes) { return uint64_t(ceil_div(int64_t(page_bytes), 4)) * 5; }

}  // namespace maestrale
