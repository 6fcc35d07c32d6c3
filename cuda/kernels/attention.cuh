// SPDX-License-Identifier: Apache-2.0
// attention_<type>_<head_dim>_<rows>: causal grouped-query attention over the paged cache, within the sliding
// window, in the manner of FlashAttention-2 (Dao 2023); split_attention_<type>_<head_dim>_<rows>: the same
// with the keys divided among blocks (split_keys.cuh).
//
// A block takes a few consecutive queries of one sequence and one KV head. The query heads that share the KV
// head lie below each other: row m of the block's matrix is query m / group, head m % group, so that one
// decoding sequence of Mistral's fills 4 of 16 rows and a page is read once for all of them. A warp has 16
// rows; blocks of one warp are for decoding, of four for prompts.
//
// The running softmax goes through the pages that its queries see and no others. It begins anew every kChunk
// positions, and the chunks are merged in ascending order. Page and chunk borders are absolute positions, and
// what a query does not see changes none of its bits, so the bits of a query depend neither on its block nor
// on the batch, nor on whether one block takes all chunks or each has a block of its own.
//
// Grid (tiles, KV heads), split (tiles, KV heads, chunks), block 32 * warps. head_dim is a multiple of 8 of
// at most kHeadDim.
#pragma once

#include "kv_page.cuh"
#include "softmax.cuh"
#include "split_keys.cuh"

namespace maestrale::device {

constexpr int kChunk = 256;  // positions

// Consecutive queries of one sequence.
struct QueryTile {
  int first_row, n_rows;     // of q and out
  long long first_position;  // of first_row
  int first_page, table;     // pages[table] holds positions 64 * first_page ...
};

template <class Kv, int kHeadDim, int kWarps>
struct Attention {
  static constexpr int kRows = 16 * kWarps, kThreads = 32 * kWarps;
  using Tile = __half[kPage][kHeadDim + 8];  // the padding spreads rows over the banks
  using Own = OwnPartial<kHeadDim>;
  static_assert(sizeof(typename Own::Row) * kRows <= 2 * sizeof(Tile));

  QueryTile tile;
  int group, heads, head_dim, lane, warp;
  long long window;
  float scale;  // to exponents of 2

  // Row m of the block's matrix.
  __device__ int matrix_rows() const { return tile.n_rows * group; }
  __device__ long long position(int m) const { return tile.first_position + m / group; }
  __device__ long long at(int m) const {
    return ((long long)(tile.first_row + m / group) * heads + blockIdx.y * group + m % group) * head_dim;
  }

  __device__ void load_queries(unsigned (&a)[kHeadDim / 16][4], const float* q) const {
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int m = 16 * warp + lane / 4 + 8 * (i & 1), d = 16 * k + 2 * (lane % 4) + 8 * (i >> 1);
        float2 pair = {0, 0};
        if (m < matrix_rows() && d < head_dim) pair = *reinterpret_cast<const float2*>(q + at(m) + d);
        a[k][i] = pack_halves(pair.x, pair.y);
      }
  }

  // The first n rows; zeros follow, since weights of 0 multiply them.
  __device__ void load_tile(Tile& to, const unsigned char* rows, const float* scales, int n) const {
    constexpr int kVectors = kHeadDim / 8;
#pragma unroll kCopiesInFlight
    for (int i = threadIdx.x; i < kPage * kVectors; i += kThreads) {
      const int row = i / kVectors, d = i % kVectors * 8;
      Kv::copy8(&to[row][d], rows + (long long)row * head_dim * Kv::kBytes, d, scales + row,
                row < n && d < head_dim);
    }
  }

  // s = q * keys^T: s[j] has positions 8 j ..
  __device__ void scores(float (&s)[8][4], const unsigned (&a)[kHeadDim / 16][4], const Tile& keys) const {
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) s[j][i] = 0;
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k)
#pragma unroll
      for (int j = 0; j < 8; j += 2) {
        unsigned b[4];
        ldmatrix(b, &keys[8 * j + (lane & 7) + 8 * (lane >> 4)][16 * k + 8 * (lane >> 3 & 1)]);
        mma(s[j], a[k], b[0], b[1]);
        mma(s[j + 1], a[k], b[2], b[3]);
      }
  }

  // Scores become weights; what was summed before shrinks to the new greatest score. `first` is the position
  // of the tile.
  __device__ void weigh(float (&s)[8][4], Softmax<kHeadDim>& state, long long first) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int m = 16 * warp + lane / 4 + 8 * h;
      const long long last = position(m) - first;
      const int begin = int(max(last - window + 1, 0ll)), end = int(min(last, 63ll));
      float greatest = -CUDART_INF_F;
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          const int key = 8 * j + 2 * (lane % 4) + (i & 1);
          s[j][i] = key >= begin && key <= end ? s[j][i] * scale : -CUDART_INF_F;
          greatest = fmaxf(greatest, s[j][i]);
        }
      const float next = fmaxf(state.greatest[h], quad_max(greatest)),
                  shrink = decay(state.greatest[h], next);
      state.greatest[h] = next;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[j][i] = decay(s[j][i], next);
          sum += s[j][i];
        }
      state.sum[h] = fmaf(state.sum[h], shrink, quad_sum(sum));
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n)
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) state.values[n][i] *= shrink;
    }
  }

  // values += weights * v
  __device__ void add_values(const float (&s)[8][4], Softmax<kHeadDim>& state, const Tile& values) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const unsigned a[4] = {pack_halves(s[2 * k][0], s[2 * k][1]), pack_halves(s[2 * k][2], s[2 * k][3]),
                             pack_halves(s[2 * k + 1][0], s[2 * k + 1][1]),
                             pack_halves(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; n += 2) {
        unsigned b[4];
        ldmatrix_transposed(b, &values[16 * k + (lane & 7) + 8 * (lane >> 3 & 1)][8 * n + 8 * (lane >> 4)]);
        mma(state.values[n], a, b[0], b[1]);
        mma(state.values[n + 1], a, b[2], b[3]);
      }
    }
  }

  // f(m, d, h, i of values[n]) for every element of this lane's rows.
  template <class F>
  __device__ void each_pair(const Softmax<kHeadDim>& state, F f) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int m = 16 * warp + lane / 4 + 8 * h;
      if (m >= matrix_rows()) continue;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const int d = 8 * n + 2 * (lane % 4);
        if (d < head_dim) f(h, m, d, float2{state.values[n][2 * h], state.values[n][2 * h + 1]});
      }
    }
  }
};

// A block takes all keys that its queries see; where kSplit, one chunk of them.
template <class Kv, int kHeadDim, int kWarps, bool kSplit>
__device__ void attention(const float* q, float* out, const QueryTile* tiles, const int* pages,
                          unsigned char* cache, long long page_bytes, long long layer_at, int group,
                          int head_dim, long long window, float scale, const Partials& partials) {
  using Block = Attention<Kv, kHeadDim, kWarps>;
  __shared__ __align__(16) typename Block::Tile tiles_there[2];
  auto &keys = tiles_there[0], &values = tiles_there[1];
  const Block block = {tiles[blockIdx.x],
                       group,
                       int(gridDim.y) * group,
                       head_dim,
                       int(threadIdx.x & 31),
                       int(threadIdx.x >> 5),
                       window,
                       scale};
  const QueryTile& tile = block.tile;
  const long long last_position = tile.first_position + tile.n_rows - 1;
  const int first_page = int(max(tile.first_position - window + 1, 0ll) / kPage);
  int page = first_page, end = int(last_position / kPage) + 1;
  constexpr int kChunkPages = kChunk / kPage;
  if (kSplit) {
    const int chunk = first_page / kChunkPages + int(blockIdx.z);
    page = max(page, chunk * kChunkPages);
    end = min(end, (chunk + 1) * kChunkPages);
    if (page >= end) return;
  }
  const bool works = 16 * block.warp < block.matrix_rows();

  unsigned a[kHeadDim / 16][4];
  block.load_queries(a, q);
  Softmax<kHeadDim> total, state;
  total.clear();
  state.clear();

  const long long head_at = layer_at + blockIdx.y * PageView<Kv>::bytes(head_dim);
  const auto view = [&](int index) {
    return PageView<Kv>{cache + pages[tile.table + index - tile.first_page] * page_bytes + head_at, head_dim};
  };
  const auto filled = [&](int index) {
    return int(min(last_position + 1 - (long long)index * kPage, (long long)kPage));
  };
  const auto load_keys = [&](int index) {
    const PageView<Kv> from = view(index);
    block.load_tile(keys, from.keys, from.key_scales(), filled(index));
    commit_copies();
  };
  load_keys(page);
  for (; page < end; ++page) {
    const PageView<Kv> from = view(page);
    block.load_tile(values, from.values(), from.value_scales(), filled(page));
    commit_copies();
    copies_landed();
    __syncthreads();  // the keys are there
    float s[8][4];
    if (works) block.scores(s, a, keys);
    __syncthreads();  // and no longer needed
    if (page + 1 < end)
      load_keys(page + 1);
    else
      commit_copies();
    if (works) block.weigh(s, state, (long long)page * kPage);
    copies_landed();
    __syncthreads();  // the values are there
    if (works) block.add_values(s, state, values);
    if (!kSplit && (page + 1) % kChunkPages == 0 && page + 1 != end) {
      total.merge(state);
      state.clear();
    }
    __syncthreads();
  }
  if constexpr (kSplit) {
    const typename Block::Own own{reinterpret_cast<typename Block::Own::Row*>(tiles_there)};
    block.each_pair(state, [&](int h, int m, int d, float2 pair) {
      const float2 of_row = {state.greatest[h], state.sum[h]};
      if (d == 0) *own.state(m) = *partials.state(blockIdx.z, m, head_dim) = of_row;
      *reinterpret_cast<float2*>(own.values(m) + d) = pair;
      *reinterpret_cast<float2*>(partials.values(blockIdx.z, m, head_dim) + d) = pair;
    });
    const int chunks = int(last_position / kChunk - first_page / kChunkPages) + 1;
    if (!partials.are_complete(chunks)) return;
    partials.merge(chunks, own, block.matrix_rows(), head_dim, [&](int m, int d, float4 values) {
      *reinterpret_cast<float4*>(out + block.at(m) + d) = values;
    });
  } else {
    total.merge(state);
    const float inverse[2] = {1.0f / total.sum[0], 1.0f / total.sum[1]};
    block.each_pair(total, [&](int h, int m, int d, float2 pair) {
      *reinterpret_cast<float2*>(out + block.at(m) + d) = {pair.x * inverse[h], pair.y * inverse[h]};
    });
  }
}

}  // namespace maestrale::device

#define MAESTRALE_ATTENTION(Kv, name, head_dim, rows)                                                  \
  extern "C" __global__ void __launch_bounds__(2 * rows) attention_##name##_##head_dim##_##rows(       \
      const float* q, float* out, const maestrale::device::QueryTile* tiles, const int* pages,         \
      unsigned char* cache, long long page_bytes, long long layer_at, int group, int actual_head_dim,  \
      long long window, float scale) {                                                                 \
    maestrale::device::attention<maestrale::device::Kv, head_dim, rows / 16, false>(                   \
        q, out, tiles, pages, cache, page_bytes, layer_at, group, actual_head_dim, window, scale, {}); \
  }                                                                                                    \
  extern "C" __global__ void __launch_bounds__(2 * rows) split_attention_##name##_##head_dim##_##rows( \
      const float* q, float* out, const maestrale::device::QueryTile* tiles, const int* pages,         \
      unsigned char* cache, long long page_bytes, long long layer_at, int group, int actual_head_dim,  \
      long long window, float scale, float* partials, int* arrivals, int partial_rows) {               \
    maestrale::device::attention<maestrale::device::Kv, head_dim, rows / 16, true>(                    \
        q, out, tiles, pages, cache, page_bytes, layer_at, group, actual_head_dim, window, scale,      \
        {partials, arrivals, partial_rows});                                                           \
  }
#define MAESTRALE_ATTENTIONS(Kv, name)  \
  MAESTRALE_ATTENTION(Kv, name, 32, 16) \
  MAESTRALE_ATTENTION(Kv, name, 32, 64) \
  MAESTRALE_ATTENTION(Kv, name, 128, 16) MAESTRALE_ATTENTION(Kv, name, 128, 64)
MAESTRALE_ATTENTIONS(KvF16, f16)
MAESTRALE_ATTENTIONS(KvBF16, bf16)
MAESTRALE_ATTENTIONS(KvQ8, q8_0)
