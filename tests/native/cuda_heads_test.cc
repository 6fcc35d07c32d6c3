// SPDX-License-Identifier: Apache-2.0
// RoPE and the KV cache on the simulated GPU, in the launch of the products and in one of their own: the bits
// of CPU code that rounds as it is written.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "cuda/kv_cache.h"
#include "cuda_parts.h"

using namespace maestrale;
using namespace maestrale::test;
using namespace maestrale::cuda;

namespace {

constexpr int64_t kCols = 256;
constexpr int32_t kHeads = 3, kKvHeads = 2, kLayers = 2, kPages = 3, kRows = 70;

// What is known of a row: where it goes, and its angles.
struct Rows {
  std::vector<int64_t> slots;
  std::vector<float> angles;  // (rows, head_dim / 2) pairs

  Rows(int32_t head_dim, std::mt19937& random) : angles(random_floats(size_t(kRows * head_dim), random)) {
    std::vector<int64_t> all(size_t(kPages * kPagePositions));
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    slots.assign(all.begin(), all.begin() + kRows);
  }
};

// ---- the oracle ------------------------------------------------------------------------------------
std::vector<float> rotated(const float* head, const float* angles, int32_t head_dim) {
  std::vector<float> out;
  for (int32_t i = 0; i < head_dim; i += 2) {
    const float x = head[i], y = head[i + 1], cosine = angles[i], sine = angles[i + 1];
    const float left = x * cosine, right = y * sine, cross = y * cosine;
    out.push_back(left - right);
    out.push_back(std::fma(x, sine, cross));
  }
  return out;
}

// A row of keys or values: its bytes at `to`, in q8_0 its scale too.
void store(KvType type, const std::vector<float>& row, uint8_t* to, uint8_t* scale) {
  float greatest = 0;
  for (const float v : row) greatest = std::max(greatest, std::fabs(v));
  const float inverse = 127.0f / greatest, unit = greatest / 127.0f;
  if (type == KvType::kQ8_0) std::memcpy(scale, &unit, sizeof unit);
  for (size_t i = 0; i < row.size(); ++i) {
    const uint16_t half = type == KvType::kF16 ? f32_to_f16(row[i]) : f32_to_bf16(row[i]);
    if (type == KvType::kQ8_0)
      to[i] = uint8_t(int8_t(std::nearbyint(row[i] * inverse)));
    else
      std::memcpy(to + 2 * i, &half, sizeof half);
  }
}

struct Case {
  KvType kv;
  int32_t head_dim;
  QuantType types[3];  // of q, k and v
};

class Oracle {
 public:
  Oracle(const Case& c, const KvConfig& config, int32_t layer)
      : case_(c),
        page_(KvCache::page_bytes(config)),
        layer_at_(page_ / kLayers * uint64_t(layer)),
        cache_(kPages * page_) {}

  const Bytes& cache() const { return cache_; }

  void append(const Rows& rows, int32_t row, int32_t kv_head, const float* k, const float* v) {
    const int64_t slot = rows.slots[size_t(row)], position = slot % kPagePositions;
    const uint64_t head_dim = uint64_t(case_.head_dim), element = case_.kv == KvType::kQ8_0 ? 1 : 2;
    const uint64_t plane = kPagePositions * head_dim * element;
    uint8_t* head = cache_.data() + uint64_t(slot / kPagePositions) * page_ + layer_at_ +
                    page_ / kLayers / kKvHeads * uint64_t(kv_head);
    uint8_t* scales = head + 2 * plane;
    const uint64_t at = uint64_t(position) * head_dim * element;
    const float* angles = rows.angles.data() + row * case_.head_dim;
    store(case_.kv, rotated(k, angles, case_.head_dim), head + at, scales + 4 * position);
    store(case_.kv, std::vector<float>(v, v + head_dim), head + plane + at,
          scales + 4 * (kPagePositions + position));
  }

 private:
  Case case_;
  uint64_t page_, layer_at_;
  Bytes cache_;
};

template <class T>
DevicePointer upload(Gpu& gpu, const std::vector<T>& values) {
  gpu.buffers.emplace_back(gpu.device, values.size() * sizeof(T), "a test");
  MAESTRALE_CU(gpu.device, cuMemcpyHtoDAsync_v2, gpu.buffers.back().address(), values.data(),
               values.size() * sizeof(T), gpu.device.stream());
  gpu.device.synchronize();
  return gpu.buffers.back().address();
}

void check_case(const Case& c) {
  Gpu gpu;
  std::mt19937 random(uint32_t(c.head_dim));
  const int64_t widths[] = {kHeads * c.head_dim, kKvHeads * c.head_dim, kKvHeads * c.head_dim};
  gpu.products.expect_rows(kRows);
  gpu.products.expect_weights(QuantType::kF16, std::max(kCols, widths[0]));
  gpu.products.prepare();
  gpu.weights.reserve(8 << 20);
  std::vector<Bytes> stored;
  std::vector<Matrix> weights;
  for (int m = 0; m < 3; ++m) stored.push_back(random_rows(c.types[m], widths[m], kCols, random));
  for (size_t m = 0; m < 3; ++m)
    weights.push_back(gpu.weights.load_matrix(StoredRows(c.types[m], widths[m], kCols, stored[m])));
  const Tensor x = gpu.upload(random_floats(size_t(kRows * kCols), random), kCols);
  const Rows rows(c.head_dim, random);
  const KvConfig config{kLayers, kKvHeads, c.head_dim, c.kv, kPages, 0};

  for (const int32_t n : {1, 7, 30, 52, kRows}) {
    for (const bool fused : {true, false}) {
      if (!fused && n != 7) continue;
      const KvCache cache(gpu.device, config);
      const Bytes nothing(KvCache::page_bytes(config) * kPages);
      MAESTRALE_CU(gpu.device, cuMemcpyHtoDAsync_v2, cache.address(), nothing.data(), nothing.size(),
                   gpu.device.stream());
      std::vector<Tensor> plain, got;
      std::vector<Projection> products, qkv;
      for (size_t m = 0; m < 3; ++m) {
        plain.push_back(gpu.upload(std::vector<float>(size_t(kRows * widths[m])), widths[m]));
        got.push_back(gpu.upload(std::vector<float>(size_t(kRows * widths[m])), widths[m]));
        products.push_back({&weights[m], plain.back()});
        qkv.push_back({&weights[m], got.back()});
      }
      const HeadArgs heads{reinterpret_cast<const float*>(uintptr_t(upload(gpu, rows.angles))),
                           reinterpret_cast<const long long*>(uintptr_t(upload(gpu, rows.slots))),
                           reinterpret_cast<unsigned char*>(uintptr_t(cache.address())),
                           cache.page_stride(),
                           cache.layer_at(1),
                           c.head_dim,
                           CacheType(c.kv)};
      gpu.products.matmul(n, x, products);
      if (fused) {
        gpu.products.matmul_heads(n, x, std::span<const Projection, 3>(qkv), heads);
      } else {
        gpu.products.matmul(n, x, qkv);
        const auto at = [&](size_t m) { return DevicePointer(uintptr_t(got[m].data)); };
        gpu.kernels.rope_append({.x = n, .y = (kHeads + 2 * kKvHeads + 3) / 4, .block = 128}, heads, at(0),
                                at(1), at(2), kHeads, kKvHeads);
      }
      std::vector<std::vector<float>> sums;
      for (size_t m = 0; m < 3; ++m)
        sums.push_back(gpu.download<float>(plain[m].data, size_t(n * widths[m])));
      Oracle oracle(c, config, 1);
      std::vector<float> q;
      for (int32_t row = 0; row < n; ++row) {
        for (int32_t head = 0; head < kHeads; ++head) {
          const std::vector<float> turned = rotated(sums[0].data() + (row * kHeads + head) * c.head_dim,
                                                    rows.angles.data() + row * c.head_dim, c.head_dim);
          q.insert(q.end(), turned.begin(), turned.end());
        }
        for (int32_t head = 0; head < kKvHeads; ++head) {
          const int64_t at = (row * kKvHeads + head) * c.head_dim;
          oracle.append(rows, row, head, sums[1].data() + at, sums[2].data() + at);
        }
      }
      CHECK(gpu.download<float>(got[0].data, q.size()) == q);
      const auto* from = reinterpret_cast<const void*>(uintptr_t(cache.address()));
      CHECK(gpu.download<uint8_t>(from, nothing.size()) == oracle.cache());
    }
  }
}

}  // namespace

TEST("cuda: heads go to the cache in the launch of their product, with weights of one type, sm_80") {
  use_simulator("cc=80,seed=4");
  for (const KvType kv : {KvType::kF16, KvType::kBF16, KvType::kQ8_0})
    check_case({kv, 128, {QuantType::kQ4_K, QuantType::kQ4_K, QuantType::kQ4_K}});
}

TEST("cuda: heads go to the cache in the launch of their product, with weights of several types, sm_75") {
  use_simulator("cc=75,seed=5,eager");
  for (const int32_t head_dim : {16, 48, 96})
    check_case({KvType::kQ8_0, head_dim, {QuantType::kQ4_K, QuantType::kQ4_K, QuantType::kQ6_K}});
  check_case({KvType::kF16, 80, {QuantType::kQ8_0, QuantType::kQ4_0, QuantType::kQ8_0}});
}
