// SPDX-License-Identifier: Apache-2.0
// What a KV cache is made for.
#pragma once

#include <cstdint>

namespace maestrale {

enum class KvType { kF16, kBF16, kQ8_0 };

struct KvConfig {
  int32_t n_layers = 0;
  int32_t n_kv_heads = 0;
  int32_t head_dim = 0;
  KvType type = KvType::kF16;
  int64_t max_pages = 0;         // page ids are 0 .. max_pages - 1
  int64_t sliding_window = 0;    // key j is visible to query i iff i - sliding_window < j <= i; 0: all j <= i
  int64_t longest_sequence = 0;  // positions; 0: what max_pages hold
};

}  // namespace maestrale
