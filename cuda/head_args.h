// SPDX-License-Identifier: Apache-2.0
// What becomes of the heads of q, k and v, and where: the same on both sides.
#pragma once

namespace maestrale::cuda {

// Queries are rotated in place, keys rotated and put into the cache, values put into the cache.
enum class Role : int { kQuery, kKey, kValue };

enum class CacheType : int { kF16, kBF16, kQ8_0 };  // as KvType

struct HeadArgs {
  const float* angles;     // (rows, head_dim / 2) pairs of cosine and sine
  const long long* slots;  // (rows): page * kPagePositions + position within the page
  unsigned char* cache;    // pages as in cuda/kernels/kv_page.cuh
  long long page_bytes;
  long long layer_at;  // where the layer begins in every page
  int head_dim;
  CacheType type;
};

}  // namespace maestrale::cuda
