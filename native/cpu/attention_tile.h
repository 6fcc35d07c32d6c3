// SPDX-License-Identifier: Apache-2.0
// Attention of a group of queries over pages of one KV head with a running softmax (Milakov 2018, Dao
// 2022), written once over V. A page of 64 positions is one tile: scores with positions in lanes, one
// rescaling a tile, then the weighted values in ascending position order. Tile borders are absolute
// positions and a query's arithmetic involves its own scores only, so the bits of a query do not
// depend on which other queries share the call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/integer.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"
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
inline constexpr int kTilePositions = 64;
inline constexpr int kQueryBlock = 6;

// Fetches `bytes` of the page to come. A page is fetched in the order in which it lies in memory, which likes
// that better than the order in which it will be read.
template <class V, int bytes>
[[gnu::always_inline]] inline void prefetch_part(const std::byte* part) {
  unroll<int(ceil_div(bytes, 64))>([&]<int i>()
                                       __attribute__((always_inline)) { V::prefetch(part + 64 * i); });
}

// fn.operator()<i, t>() for n queries and `tiles` vectors of each.
template <int n, int tiles, class Fn>
[[gnu::always_inline]] inline void unroll_tiles(Fn&& fn) {
  unroll<n * tiles>([&]<int k>()
                        __attribute__((always_inline)) { fn.template operator()<k / tiles, k % tiles>(); });
}

// The two products below stay functions of their own, with sums in local arrays whose indices the compiler
// knows: otherwise GCC keeps the sums in memory throughout the loop, at half the speed.

// scores[query][position] of n queries for 16 `tiles` positions of a page from tile `first_tile`. kFetch:
// those of the page to come, `next_k`, are fetched meanwhile.
template <class V, class Kv, int n, int tiles, bool kFetch>
[[gnu::noinline]] void page_scores(const float* q, int32_t head_dim, const std::byte* k,
                                   const std::byte* next_k, int first_tile, float* scores) {
  constexpr int kLaneBytes = 16 * Kv::kBytes;
  k += first_tile * head_dim * kLaneBytes;
  next_k += first_tile * head_dim * kLaneBytes;
  typename V::F acc[n][tiles];
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) { acc[i][t] = V::zero(); });
  for (int32_t d = 0; d < head_dim; ++d) {
    if constexpr (kFetch) prefetch_part<V, tiles * kLaneBytes>(next_k + d * tiles * kLaneBytes);
    typename V::F key[tiles];
    unroll<tiles>([&]<int t>() __attribute__((always_inline)) {
      key[t] = Kv::load(k + (t * head_dim + d) * kLaneBytes);
    });
    unroll<n>([&]<int i>() __attribute__((always_inline)) {
      const auto value = V::set1(q[i * head_dim + d]);
      unroll<tiles>([&]<int t>()
                        __attribute__((always_inline)) { acc[i][t] = V::fma(key[t], value, acc[i][t]); });
    });
  }
  scores += 16 * first_tile;
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) {
    V::store(scores + i * kTilePositions + 16 * t, acc[i][t]);
  });
}

// out[i] = out[i] * alpha[i] + sum_pos weights[i][pos] * v[pos] for 16 `tiles` columns from column `d`.
template <class V, class Kv, int n, int tiles, bool kFetch>
[[gnu::noinline]] void page_values(const float* weights, const float (&alpha)[n], int begin, int end,
                                   const std::byte* v, const std::byte* next_v, int32_t head_dim, int32_t d,
                                   float* out) {
  constexpr int kBytes = 16 * tiles * Kv::kBytes;
  out += d;
  next_v += int64_t(d) * kTilePositions * Kv::kBytes;
  typename V::F acc[n][tiles];
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) {
    acc[i][t] = V::mul(V::load(out + i * head_dim + 16 * t), V::set1(alpha[i]));
  });
  for (int pos = begin; pos < end; ++pos) {
    const int64_t at = int64_t(pos * head_dim + d) * Kv::kBytes;
    if constexpr (kFetch) prefetch_part<V, kBytes>(next_v + pos * kBytes);
    typename V::F value[tiles];
    unroll<tiles>([&]<int t>()
                      __attribute__((always_inline)) { value[t] = Kv::load(v + at + 16 * t * Kv::kBytes); });
    unroll<n>([&]<int i>() __attribute__((always_inline)) {
      const auto weight = V::set1(weights[i * kTilePositions + pos]);
      unroll<tiles>([&]<int t>()
                        __attribute__((always_inline)) { acc[i][t] = V::fma(weight, value[t], acc[i][t]); });
    });
  }
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) {
    V::store(out + i * head_dim + 16 * t, acc[i][t]);
  });
}

// Positions [lo, hi) of a page that a query sees; none when lo >= hi.
struct VisibleRange {
  int lo, hi;
};
inline VisibleRange visible_range(const AttentionJob& job, int query, int64_t page_start) {
  const int64_t from = job.first[query] - page_start, to = job.last[query] - page_start;
  return {from < 0                ? 0
          : from > kTilePositions ? kTilePositions
                                  : int(from),
          to > kTilePositions ? kTilePositions
          : to < 0            ? 0
                              : int(to)};
}

// Turns a query's scores of a page into weights, in place, and updates its running softmax. Returns the
// factor by which its sums of earlier pages shrink.
template <class V, class Kv>
float page_weights(const KvPageView& page, VisibleRange visible, AttentionState& state, float* row) {
  if (visible.lo >= visible.hi) {
    for (int t = 0; t < 4; ++t) V::store(row + 16 * t, V::zero());
    return 1.0f;
  }
  const auto clamp = [](int x) { return x < 0 ? 0 : x > 16 ? 16 : x; };
  const auto minus_infinity = V::set1(-__builtin_inff());
  typename V::F s[4];
  for (int t = 0; t < 4; ++t) {
    s[t] = V::load(row + 16 * t);
    if constexpr (Kv::kScaled) s[t] = V::mul(s[t], V::load(page.k_scale + 16 * t));
    s[t] = V::select_below(s[t], clamp(visible.lo - 16 * t), clamp(visible.hi - 16 * t), minus_infinity);
  }
  const float tile_max = V::reduce_max(V::max(V::max(s[0], s[1]), V::max(s[2], s[3])));
  const float new_max = state.max > tile_max ? state.max : tile_max;
  float alpha[16];
  V::store(alpha, exp2<V>(V::set1(state.max - new_max)));
  for (auto& tile : s) tile = exp2<V>(V::sub(tile, V::set1(new_max)));
  const float sum = V::reduce_add(V::add(V::add(s[0], s[1]), V::add(s[2], s[3])));
  state.max = new_max;
  state.sum = state.sum * alpha[0] + sum;
  for (int t = 0; t < 4; ++t) {
    if constexpr (Kv::kScaled) s[t] = V::mul(s[t], V::load(page.v_scale + 16 * t));
    V::store(row + 16 * t, s[t]);
  }
  return alpha[0];
}

// One page for the queries [first, first + n).
template <class V, class Kv, int n, bool kFetch>
void attend_page(const AttentionJob& job, int first, int64_t page_start, const KvPageView& page,
                 const KvPageView& next) {
  VisibleRange visible[n];
  int begin = kTilePositions, end = 0;
  for (int i = 0; i < n; ++i) {
    visible[i] = visible_range(job, first + i, page_start);
    if (visible[i].lo >= visible[i].hi) continue;
    begin = visible[i].lo < begin ? visible[i].lo : begin;
    end = visible[i].hi > end ? visible[i].hi : end;
  }
  if (begin >= end) return;  // no query of this block sees the page

  alignas(64) float weights[n * kTilePositions];  // scores at first
  for (int t = 0; t < 4; t += V::kAttentionTiles)
    page_scores<V, Kv, n, V::kAttentionTiles, kFetch>(job.q + first * job.head_dim, job.head_dim, page.k,
                                                      next.k, t, weights);
  float alpha[n];
  for (int i = 0; i < n; ++i)
    alpha[i] = page_weights<V, Kv>(page, visible[i], job.state[first + i], weights + i * kTilePositions);
  float* out = job.out + first * job.head_dim;
  constexpr int kColumns = 16 * V::kAttentionTiles;
  int32_t d = 0;
  for (; d + kColumns <= job.head_dim; d += kColumns)
    page_values<V, Kv, n, V::kAttentionTiles, kFetch>(weights, alpha, begin, end, page.v, next.v,
                                                      job.head_dim, d, out);
  if constexpr (kColumns > 16)
    for (; d < job.head_dim; d += 16)
      page_values<V, Kv, n, 1, kFetch>(weights, alpha, begin, end, page.v, next.v, job.head_dim, d, out);
}

template <class V, class Kv, bool kFetch>
void attend_pages(const AttentionJob& job) {
  for (int32_t p = 0; p < job.n_pages; ++p) {
    const KvPageView& page = job.pages[p];
    const KvPageView& next = p + 1 < job.n_pages    ? job.pages[p + 1]
                             : job.after != nullptr ? *job.after
                                                    : page;
    const int64_t start = job.base + kTilePositions * int64_t(p);
    for (int first = 0; first < job.n_queries; first += kQueryBlock) {
      const int n = job.n_queries - first < kQueryBlock ? job.n_queries - first : kQueryBlock;
      unroll<kQueryBlock>([&]<int i>() __attribute__((always_inline)) {
        if (n == i + 1) attend_page<V, Kv, i + 1, kFetch>(job, first, start, page, next);
      });
    }
  }
}

// A single block of queries waits for memory: so the page to come is fetched while it computes. Several have
// enough to do with a page, and the first of them brings it.
template <class V, class Kv>
void attend(const AttentionJob& job) {
  if (job.n_queries <= kQueryBlock)
    attend_pages<V, Kv, true>(job);
  else
    attend_pages<V, Kv, false>(job);
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
