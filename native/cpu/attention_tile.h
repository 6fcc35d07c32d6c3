// SPDX-License-Identifier: Apache-2.0
// Attention of a group of queries over pages of one KV head with a running softmax (Milakov 2018, Dao
// 2022), written once over V. A page of 64 positions is one tile: scores with positions in lanes, one
// rescaling a tile, then the weighted values in ascending position order. Tile borders are absolute
// positions and a query's arithmetic involves its own scores only, so the bits of a query do not
// depend on which other queries share the call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/vector_ops.h"

namespace maestrale {

// 16 neighbouring cache elements as floats; kScaled: a float scale per position multiplies them.
template <class V>
struct KvF16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static typename V::F load(const std::byte* p) { return V::load_f16(p); }
};
template <class V>
struct KvBF16 {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static typename V::F load(const std::byte* p) { return V::load_bf16(p); }
};
template <class V>
struct KvQ8 {
  static constexpr int kBytes = 1;
  static constexpr bool kScaled = true;
  static typename V::F load(const std::byte* p) { return V::load_i8(p); }
};
// Elements widened into the thread's scratch, where many queries reuse them.
template <class V>
struct KvWidened {
  static constexpr int kBytes = 4;
  static typename V::F load(const std::byte* p) { return V::load(reinterpret_cast<const float*>(p)); }
};

inline constexpr int kTilePositions = 64;
inline constexpr int kQueryBlock = 4;

// Scores of n queries against one page: s[query][4 tiles of 16 positions].
template <class V, class Kv, int n>
void page_scores(const float* q, int32_t head_dim, const std::byte* k, typename V::F (&s)[n][4]) {
  for (auto& row : s)
    for (auto& tile : row) tile = V::zero();
  for (int32_t d = 0; d < head_dim; ++d) {
    typename V::F key[4];
    for (int t = 0; t < 4; ++t) key[t] = Kv::load(k + (t * head_dim + d) * 16 * Kv::kBytes);
    for (int i = 0; i < n; ++i) {
      const auto value = V::set1(q[i * head_dim + d]);
      for (int t = 0; t < 4; ++t) s[i][t] = V::fma(key[t], value, s[i][t]);
    }
  }
}

// out[i] = out[i] * alpha[i] + sum_pos weights[i][pos] * v[pos] for 16 `tiles` columns from column `d`.
template <class V, class Kv, int n, int tiles>
void page_values(const float* weights, const float (&alpha)[n], int begin, int end, const std::byte* v,
                 int32_t head_dim, int32_t d, float* out) {
  typename V::F acc[n][tiles];
  for (int i = 0; i < n; ++i)
    for (int t = 0; t < tiles; ++t)
      acc[i][t] = V::mul(V::load(out + i * head_dim + d + 16 * t), V::set1(alpha[i]));
  for (int pos = begin; pos < end; ++pos) {
    typename V::F value[tiles];
    for (int t = 0; t < tiles; ++t) value[t] = Kv::load(v + (pos * head_dim + d + 16 * t) * Kv::kBytes);
    for (int i = 0; i < n; ++i) {
      const auto weight = V::set1(weights[i * kTilePositions + pos]);
      for (int t = 0; t < tiles; ++t) acc[i][t] = V::fma(weight, value[t], acc[i][t]);
    }
  }
  for (int i = 0; i < n; ++i)
    for (int t = 0; t < tiles; ++t) V::store(out + i * head_dim + d + 16 * t, acc[i][t]);
}

// One page for queries [first, first + n). kScaled: the page has per-position scales.
template <class V, class Kv, bool kScaled, int n>
void attend_page(const AttentionJob& job, int first, int64_t page_start, const KvPageView& page,
                 const std::byte* k, const std::byte* v, float* weights) {
  int lo[n], hi[n], begin = kTilePositions, end = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t from = job.first[first + i] - page_start, to = job.last[first + i] - page_start;
    lo[i] = from < 0 ? 0 : from > kTilePositions ? kTilePositions : int(from);
    hi[i] = to > kTilePositions ? kTilePositions : to < 0 ? 0 : int(to);
    if (lo[i] >= hi[i]) continue;
    begin = lo[i] < begin ? lo[i] : begin;
    end = hi[i] > end ? hi[i] : end;
  }
  if (begin >= end) return;  // no query of this block sees the page

  typename V::F s[n][4];
  page_scores<V, Kv, n>(job.q + first * job.head_dim, job.head_dim, k, s);
  const auto minus_infinity = V::set1(-__builtin_inff());
  float alpha[n];
  for (int i = 0; i < n; ++i) {
    float* row = weights + i * kTilePositions;
    if (lo[i] >= hi[i]) {
      alpha[i] = 1.0f;
      for (int t = 0; t < 4; ++t) V::store(row + 16 * t, V::zero());
      continue;
    }
    for (int t = 0; t < 4; ++t) {
      if constexpr (kScaled) s[i][t] = V::mul(s[i][t], V::load(page.k_scale + 16 * t));
      const int from = lo[i] - 16 * t, to = hi[i] - 16 * t;
      s[i][t] = V::select_below(s[i][t],
                                from < 0    ? 0
                                : from > 16 ? 16
                                            : from,
                                to < 0    ? 0
                                : to > 16 ? 16
                                          : to,
                                minus_infinity);
    }
    AttentionState& state = job.state[first + i];
    const float tile_max = V::reduce_max(V::max(V::max(s[i][0], s[i][1]), V::max(s[i][2], s[i][3])));
    const float new_max = state.max > tile_max ? state.max : tile_max;
    float lanes[16];
    V::store(lanes, exp2<V>(V::set1(state.max - new_max)));
    alpha[i] = lanes[0];
    for (int t = 0; t < 4; ++t) s[i][t] = exp2<V>(V::sub(s[i][t], V::set1(new_max)));
    const float sum = V::reduce_add(V::add(V::add(s[i][0], s[i][1]), V::add(s[i][2], s[i][3])));
    state.max = new_max;
    state.sum = state.sum * alpha[i] + sum;
    for (int t = 0; t < 4; ++t) {
      if constexpr (kScaled) s[i][t] = V::mul(s[i][t], V::load(page.v_scale + 16 * t));
      V::store(row + 16 * t, s[i][t]);
    }
  }
  float* out = job.out + first * job.head_dim;
  int32_t d = 0;
  for (; d + 64 <= job.head_dim; d += 64)
    page_values<V, Kv, n, 4>(weights, alpha, begin, end, v, job.head_dim, d, out);
  for (; d < job.head_dim; d += 16)
    page_values<V, Kv, n, 1>(weights, alpha, begin, end, v, job.head_dim, d, out);
}

template <class V, class Kv, bool kScaled>
void attend_blocks(const AttentionJob& job, int64_t page_start, const KvPageView& page, const std::byte* k,
                   const std::byte* v, float* weights) {
  for (int first = 0; first < job.n_queries; first += kQueryBlock) {
    switch (job.n_queries - first) {
      case 1: attend_page<V, Kv, kScaled, 1>(job, first, page_start, page, k, v, weights); break;
      case 2: attend_page<V, Kv, kScaled, 2>(job, first, page_start, page, k, v, weights); break;
      case 3: attend_page<V, Kv, kScaled, 3>(job, first, page_start, page, k, v, weights); break;
      default: attend_page<V, Kv, kScaled, 4>(job, first, page_start, page, k, v, weights); break;
    }
  }
}

template <class V, class Kv>
void attend(const AttentionJob& job) {
  const int64_t elements = kTilePositions * int64_t(job.head_dim);
  float* k_wide = job.scratch;
  float* v_wide = k_wide + elements;
  float* weights = v_wide + elements;
  for (int32_t p = 0; p < job.n_pages; ++p) {
    const KvPageView& page = job.pages[p];
    const int64_t start = job.base + kTilePositions * int64_t(p);
    if (job.n_queries <= 2 * kQueryBlock) {
      attend_blocks<V, Kv, Kv::kScaled>(job, start, page, page.k, page.v, weights);
      continue;
    }
    for (int64_t i = 0; i < elements; i += 16) {
      V::store(k_wide + i, Kv::load(page.k + i * Kv::kBytes));
      V::store(v_wide + i, Kv::load(page.v + i * Kv::kBytes));
    }
    attend_blocks<V, KvWidened<V>, Kv::kScaled>(job, start, page, reinterpret_cast<const std::byte*>(k_wide),
                                                reinterpret_cast<const std::byte*>(v_wide), weights);
  }
}

template <class V>
void merge_attention(AttentionState* state, float* out, const AttentionState* later, const float* later_out,
                     int32_t n_queries, int32_t head_dim) {
  for (int32_t i = 0; i < n_queries; ++i, out += head_dim, later_out += head_dim) {
    if (later[i].sum == 0.0f) continue;  // the query sees nothing of the later chunk
    const float max = state[i].max > later[i].max ? state[i].max : later[i].max;
    float a[16], b[16];
    V::store(a, exp2<V>(V::set1(state[i].max - max)));
    V::store(b, exp2<V>(V::set1(later[i].max - max)));
    state[i].max = max;
    state[i].sum = state[i].sum * a[0] + later[i].sum * b[0];
    for (int32_t d = 0; d < head_dim; d += 16)
      V::store(out + d,
               V::fma(V::load(out + d), V::set1(a[0]), V::mul(V::load(later_out + d), V::set1(b[0]))));
  }
}

}  // namespace maestrale
