// SPDX-License-Identifier: Apache-2.0
// Memory of the KV cache on the CPU: max_pages pages in one reservation that the kernel fills in as pages are
// first used. A page holds, for every layer and KV head, the keys, the values and (Q8_0) their scales.
#pragma once

#include <cstdint>

#include "backend/batch.h"
#include "backend/kv_config.h"
#include "base/memory.h"
#include "cpu/kernels.h"

namespace maestrale {

class CpuKvCache {
 public:
  CpuKvCache() = default;
  explicit CpuKvCache(const KvConfig& config)
      : config_(config), memory_(page_bytes(config) * uint64_t(config.max_pages), "the KV cache") {}

  static uint64_t page_bytes(const KvConfig& config) {
    return uint64_t(config.n_layers) * uint64_t(config.n_kv_heads) * head_bytes(config);
  }

  const KvConfig& config() const { return config_; }

  KvPageView view(PageId page, int32_t layer, int32_t kv_head) const {
    std::byte* k = memory_.data() + uint64_t(page) * page_bytes(config_) +
                   uint64_t(layer * config_.n_kv_heads + kv_head) * head_bytes(config_);
    std::byte* v = k + elements(config_) * element_bytes(config_);
    const auto* scales =  // 64-byte aligned
        reinterpret_cast<const float*>(v + elements(config_) * element_bytes(config_));
    return {k, v, scales, scales + kPagePositions};
  }

  // Stores key and value (head_dim floats each) of one position. `slot` is the position within the page.
  void append(const Kernels& kernels, PageId page, int32_t layer, int32_t kv_head, int32_t slot,
              const float* k, const float* v);

 private:
  static uint64_t elements(const KvConfig& c) { return uint64_t(kPagePositions) * uint64_t(c.head_dim); }
  static uint64_t element_bytes(const KvConfig& c) { return c.type == KvType::kQ8_0 ? 1 : 2; }
  static uint64_t head_bytes(const KvConfig& c) {
    return 2 * elements(c) * element_bytes(c) + 2 * sizeof(float) * uint64_t(kPagePositions);
  }

  KvConfig config_;
  Buffer memory_;
};

}  // namespace maestrale
