// SPDX-License-Identifier: Apache-2.0
#include "cpu/kv_cache.h"

#include <cstring>

#include "base/half.h"

namespace maestrale {
namespace {

constexpr int32_t kMaxHeadDim = 256;

// Element d of a key goes to lane slot % 16 of line d of the tile slot / 16.
template <class T>
void scatter_key(const T* key, int32_t head_dim, int32_t slot, std::byte* page_k) {
  T* tile = reinterpret_cast<T*>(page_k) + (slot / 16) * head_dim * 16 + slot % 16;
  for (int32_t d = 0; d < head_dim; ++d) tile[16 * d] = key[d];
}

}  // namespace

void CpuKvCache::append(const Kernels& kernels, PageId page, int32_t layer, int32_t kv_head, int32_t slot,
                        const float* k, const float* v) {
  const KvPageView at = view(page, layer, kv_head);
  std::byte* page_k = const_cast<std::byte*>(at.k);
  std::byte* page_v = const_cast<std::byte*>(at.v);
  const int32_t head_dim = config_.head_dim;
  if (config_.type == KvType::kQ8_0) {
    int8_t key[kMaxHeadDim];
    const_cast<float*>(at.k_scale)[slot] = kernels.to_i8(k, head_dim, key);
    scatter_key(key, head_dim, slot, page_k);
    const_cast<float*>(at.v_scale)[slot] =
        kernels.to_i8(v, head_dim, reinterpret_cast<int8_t*>(page_v) + slot * head_dim);
    return;
  }
  uint16_t key[kMaxHeadDim];
  uint16_t* value = reinterpret_cast<uint16_t*>(page_v) + slot * head_dim;
  if (config_.type == KvType::kF16) {
    kernels.to_f16(k, head_dim, key);
    kernels.to_f16(v, head_dim, value);
  } else {
    for (int32_t d = 0; d < head_dim; ++d) {
      key[d] = f32_to_bf16(k[d]);
      value[d] = f32_to_bf16(v[d]);
    }
  }
  scatter_key(key, head_dim, slot, page_k);
}

}  // namespace maestrale
