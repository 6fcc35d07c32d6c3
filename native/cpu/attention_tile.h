// SPDX-License-Identifier: Apache-2.0
// Attention of a group of queries over pages of one KV head with a running softmax (Milakov 2018, Dao
// 2022), written once over V. A page of 64 positions is one tile: scores with positions in lanes, one
// rescaling a tile, then the weighted values in ascending position order. Tile borders are absolute
// positions and a query's arithmetic involves its own scores only, so the bits of a query do not
// depend on which other queries share the call.
//
// Queries, keys, values and weights are integers with a scale each, and their products are exact sums of
// int32, two to an instruction:
//
//   s[pos] = k_scale[pos] * sum_d q[d] * k[pos][d]
//   p[pos] = 2^(s[pos] * q_scale - max)
//   w[pos] = nearest(p[pos] * v_scale[pos] / step)
//   out[d] = out[d] * alpha + step * sum_pos w[pos] * v[pos][d]
//
// where |q| and |k| are at most kMaxNorm16, so that no sum of their products reaches 2^31 (Cauchy-Schwarz);
// max is the largest s * q_scale so far, alpha = 2^(max before - max), and step is such that the w of a page
// are within int16 and sum up to kMaxWeights at most.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/integer.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"
#include "cpu/vector_ops.h"

namespace maestrale {

// 16 lanes of two neighbouring cache elements as int16.
template <class V>
struct KvI16 {
  static constexpr int kBytes = 2;
  static typename V::I load(const std::byte* p) { return V::line(p); }
};
template <class V>
struct KvI8 {
  static constexpr int kBytes = 1;
  static typename V::I load(const std::byte* p) { return V::load_s8_halves(p); }
};
inline constexpr int kTilePositions = 64;
inline constexpr int kQueryBlock = 6;
// Largest sum of the weights of a page, to which rounding adds 32 at most.
inline constexpr float kMaxWeights = 131000.0f;
static_assert((int64_t(kMaxWeights) + kTilePositions / 2) * kMaxValue16 <= INT32_MAX);

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
[[gnu::noinline]] void page_scores(const int16_t* q, int32_t head_dim, const std::byte* k,
                                   const std::byte* next_k, int first_tile, float* scores) {
  constexpr int kLineBytes = 32 * Kv::kBytes;
  const int32_t n_pairs = head_dim / 2;
  k += first_tile * n_pairs * kLineBytes;
  next_k += first_tile * n_pairs * kLineBytes;
  typename V::I acc[n][tiles];
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) { acc[i][t] = V::zero_i(); });
  for (int32_t d = 0; d < n_pairs; ++d) {
    if constexpr (kFetch) prefetch_part<V, tiles * kLineBytes>(next_k + d * tiles * kLineBytes);
    typename V::I key[tiles];
    unroll<tiles>([&]<int t>() __attribute__((always_inline)) {
      key[t] = Kv::load(k + (t * n_pairs + d) * kLineBytes);
    });
    unroll<n>([&]<int i>() __attribute__((always_inline)) {
      const auto pair = V::broadcast4(q + i * head_dim + 2 * d);
      unroll<tiles>([&]<int t>()
                        __attribute__((always_inline)) { acc[i][t] = V::dot2(acc[i][t], key[t], pair); });
    });
  }
  scores += 16 * first_tile;
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) {
    V::store(scores + i * kTilePositions + 16 * t, V::to_float(acc[i][t]));
  });
}

// What a page does to the sums of up to kQueryBlock queries: those of earlier pages shrink by alpha, and step
// is the scale of the weights in the page.
struct PageFactors {
  float alpha[16], step[16];
};

// out[i] = out[i] * alpha[i] + step[i] * sum_pos weights[i][pos] * v[pos] for 16 `tiles` columns from column
// `d` and pairs of positions [begin, end).
template <class V, class Kv, int n, int tiles, bool kFetch>
[[gnu::noinline]] void page_values(const int16_t* weights, const PageFactors& factors, int begin, int end,
                                   const std::byte* v, const std::byte* next_v, int32_t head_dim, int32_t d,
                                   float* out) {
  constexpr int kBytes = 32 * tiles * Kv::kBytes;
  out += d;
  next_v += int64_t(d) * kTilePositions * Kv::kBytes;
  typename V::I acc[n][tiles];
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) { acc[i][t] = V::zero_i(); });
  for (int pair = begin; pair < end; ++pair) {
    const int64_t at = 2 * int64_t(pair * head_dim + d) * Kv::kBytes;
    if constexpr (kFetch) prefetch_part<V, kBytes>(next_v + pair * kBytes);
    typename V::I value[tiles];
    unroll<tiles>([&]<int t>()
                      __attribute__((always_inline)) { value[t] = Kv::load(v + at + 32 * t * Kv::kBytes); });
    unroll<n>([&]<int i>() __attribute__((always_inline)) {
      const auto weight = V::broadcast4(weights + i * kTilePositions + 2 * pair);
      unroll<tiles>([&]<int t>()
                        __attribute__((always_inline)) { acc[i][t] = V::dot2(acc[i][t], value[t], weight); });
    });
  }
  unroll_tiles<n, tiles>([&]<int i, int t>() __attribute__((always_inline)) {
    float* at = out + i * head_dim + 16 * t;
    V::store(at, V::fma(V::to_float(acc[i][t]), V::set1(factors.step[i]),
                        V::mul(V::load(at), V::set1(factors.alpha[i]))));
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

// x at the positions that a query sees among those of tile t, `other` elsewhere: scales of positions that it
// does not see may be anything, NaN included.
template <class V>
[[gnu::always_inline]] inline typename V::F where_visible(VisibleRange visible, int t, typename V::F x,
                                                          float other) {
  if (visible.lo == 0 && visible.hi == kTilePositions) return x;
  const auto clamp = [](int lane) { return lane < 0 ? 0 : lane > 16 ? 16 : lane; };
  return V::select_below(x, clamp(visible.lo - 16 * t), clamp(visible.hi - 16 * t), V::set1(other));
}

// Turns the scores of n queries, before their own scales, into weights and updates their running softmax.
// Step by step for all of them, as each step of one query waits for the one before. `scores` is overwritten.
template <class V, int n>
void page_weights(const KvPageView& page, const VisibleRange (&visible)[n], const float* q_scale,
                  AttentionState* state, float* scores, int16_t* weights, PageFactors& factors) {
  constexpr int kTiles = kTilePositions / 16;
  using Tiles = typename V::F[kTiles];
  const auto seen = [&](int i) { return visible[i].lo < visible[i].hi; };
  const auto total = [](const Tiles& s) { return V::add(V::add(s[0], s[1]), V::add(s[2], s[3])); };
  const auto largest = [](const Tiles& s) { return V::max(V::max(s[0], s[1]), V::max(s[2], s[3])); };

  float change[16] = {};  // of the maximum
  for (int i = 0; i < n; ++i) {
    if (!seen(i)) continue;
    Tiles s;
    for (int t = 0; t < kTiles; ++t) {
      float* at = scores + i * kTilePositions + 16 * t;
      s[t] = where_visible<V>(visible[i], t, V::mul(V::load(at), V::load(page.k_scale + 16 * t)),
                              -__builtin_inff());
      V::store(at, s[t]);
    }
    const float page_max = q_scale[i] * V::reduce_max(largest(s)), before = state[i].max;
    state[i].max = before > page_max ? before : page_max;
    change[i] = before - state[i].max;
  }
  V::store(factors.alpha, exp2<V>(V::load(change)));

  float weight_sum[n], largest_weight[n];
  for (int i = 0; i < n; ++i) {
    if (!seen(i)) continue;
    Tiles p;
    for (int t = 0; t < kTiles; ++t)
      p[t] = exp2<V>(
          V::fma(V::load(scores + i * kTilePositions + 16 * t), V::set1(q_scale[i]), V::set1(-state[i].max)));
    state[i].sum = state[i].sum * factors.alpha[i] + V::reduce_add(total(p));
    for (int t = 0; t < kTiles; ++t) {
      p[t] = where_visible<V>(visible[i], t, V::mul(p[t], V::load(page.v_scale + 16 * t)), 0.0f);
      V::store(scores + i * kTilePositions + 16 * t, p[t]);
    }
    weight_sum[i] = V::reduce_add(total(p));
    largest_weight[i] = V::reduce_max(largest(p));
  }

  for (int i = 0; i < n; ++i) {
    int16_t* out = weights + i * kTilePositions;
    if (seen(i)) {
      const float by_sum = weight_sum[i] * (1.0f / kMaxWeights);
      const float by_largest = largest_weight[i] * (1.0f / float(INT16_MAX));
      factors.step[i] = by_largest > by_sum ? by_largest : by_sum;  // NaN if a weight is
      round_i16<V>(scores + i * kTilePositions, kTilePositions, factors.step[i], out);
    } else {
      factors.step[i] = 0.0f;
      for (int t = 0; t < kTiles; ++t) V::store_s16(out + 16 * t, V::zero_i());
    }
  }
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

  alignas(64) float scores[n * kTilePositions];
  alignas(64) int16_t weights[n * kTilePositions];
  for (int t = 0; t < 4; t += V::kAttentionTiles)
    page_scores<V, Kv, n, V::kAttentionTiles, kFetch>(job.q + first * job.head_dim, job.head_dim, page.k,
                                                      next.k, t, scores);
  PageFactors factors;
  page_weights<V, n>(page, visible, job.q_scale + first, job.state + first, scores, weights, factors);
  float* out = job.out + first * job.head_dim;
  constexpr int kColumns = 16 * V::kAttentionTiles;
  const int first_pair = begin / 2, end_pair = (end + 1) / 2;
  int32_t d = 0;
  for (; d + kColumns <= job.head_dim; d += kColumns)
    page_values<V, Kv, n, V::kAttentionTiles, kFetch>(weights, factors, first_pair, end_pair, page.v, next.v,
                                                      job.head_dim, d, out);
  if constexpr (kColumns > 16)
    for (; d < job.head_dim; d += 16)
      page_values<V, Kv, n, 1, kFetch>(weights, factors, first_pair, end_pair, page.v, next.v, job.head_dim,
                                       d, out);
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
