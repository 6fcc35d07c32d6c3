// SPDX-License-Identifier: Apache-2.0
// Memory of the KV cache on the device: max_pages pages, laid out as cuda/kernels/kv_page.cuh says.
#pragma once

#include <cstdint>
#include <string>

#include "backend/backend.h"
#include "base/error.h"
#include "cuda/device.h"

namespace maestrale::cuda {

class KvCache {
 public:
  static constexpr int32_t kMaxHeadDim = 128;

  KvCache() = default;
  // Throws Error{kModelUnsupported} for a head dimension that the kernels do not have.
  KvCache(const Device& device, const KvConfig& config) : config_(config) {
    if (config.head_dim > kMaxHeadDim || config.head_dim % 8 != 0)
      throw Error(ErrorCode::kModelUnsupported, "the head dimension is " + std::to_string(config.head_dim) +
                                                    ", on CUDA it must be a multiple of 8 of at most " +
                                                    std::to_string(kMaxHeadDim));
    memory_ = DeviceBuffer(device, page_bytes(config) * uint64_t(config.max_pages), "KV cache");
  }

  static uint64_t page_bytes(const KvConfig& c) { return uint64_t(c.n_layers) * layer_bytes(c); }

  const KvConfig& config() const { return config_; }
  DevicePointer address() const { return memory_.address(); }
  int64_t page_stride() const { return int64_t(page_bytes(config_)); }
  // Where a layer begins in every page.
  int64_t layer_at(int32_t layer) const { return int64_t(uint64_t(layer) * layer_bytes(config_)); }

 private:
  static uint64_t layer_bytes(const KvConfig& c) {
    const uint64_t element = c.type == KvType::kQ8_0 ? 1 : 2, scale = c.type == KvType::kQ8_0 ? 4 : 0;
    return uint64_t(c.n_kv_heads) * 2 * uint64_t(kPagePositions) * (uint64_t(c.head_dim) * element + scale);
  }

  KvConfig config_;
  DeviceBuffer memory_;
};

}  // namespace maestrale::cuda
