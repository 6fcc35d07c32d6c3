// SPDX-License-Identifier: Apache-2.0
#include "cpu/kv_cache.h"

#include <cstring>

namespace maestrale {
namespace {

constexpr int32_t kMaxHeadDim = 256;

// Elements 2 i and 2 i + 1 of a key go to lane slot % 16 of line i of the tile slot / 16.
template <class T>
void scatter_key(const T* key, int32_t head_dim, int32_t slot, std::byte* page_k) {
  T* lane = reinterpret_cast<T*>(page_k) + (slot / 16) * head_dim * 16 + 2 * (slot % 16);
  for (int32_t d = 0; d < head_dim; d += 2) std::memcpy(lane + 16 * d, key + d, 2 * sizeof(T));
}

// Element d of a value goes next to that of the other position of its pair.
template <class T>
void scatter_value(const T* value, int32_t head_dim, int32_t slot, std::byte* page_v) {
  T* pair = reinterpret_cast<T*>(page_v) + (slot / 2) * head_dim * 2 + slot % 2;
  for (int32_t d = 0; d < head_dim; ++d) pair[2 * d] = value[d];
}

}  // namespace

void CpuKvCache::append(const Kernels& kernels, PageId page, int32_t layer, int32_t kv_head, int32_t slot,
                        const float* k, const float* v) {
  const KvPageView at = view(page, layer, kv_head);
  std::byte* page_k = const_cast<std::byte*>(at.k);
  std::byte* page_v = const_cast<std::byte*>(at.v);
  float* k_scale = const_cast<float*>(at.k_scale) + slot;
  float* v_scale = const_cast<float*>(at.v_scale) + slot;
  const int32_t head_dim = config_.head_dim;
  if (config_.type == KvType::kQ8_0) {
    int8_t row[kMaxHeadDim];
    *k_scale = kernels.to_i8(k, head_dim, row);
    scatter_key(row, head_dim, slot, page_k);
    *v_scale = kernels.to_i8(v, head_dim, row);
    scatter_value(row, head_dim, slot, page_v);
  } else {
    int16_t row[kMaxHeadDim];
    *k_scale = kernels.vector_to_i16(k, head_dim, row);
    scatter_key(row, head_dim, slot, page_k);
    *v_scale = kernels.value_to_i16(v, head_dim, row);
    scatter_value(row, head_dim, slot, page_v);
  }
}

}  // namespace maestrale
