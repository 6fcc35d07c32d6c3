// SPDX-License-Identifier: Apache-2.0
// The table of kernels that every instruction set fills: raw pointers in, raw pointers out, one thread.
// Tables differ in speed only; each gives the bits of the scalar one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// out[row][16 p + i] (+)= sum_e weight(16 p + i, e) * x(row, e) for n_panels panels and n_rows rows.
struct GemmJob {
  const std::byte* panels;  // n_panels panels, panel_stride bytes apart
  int64_t panel_stride;
  int32_t n_panels;
  int64_t units;       // of a panel along the input dimension
  const std::byte* x;  // n_rows rows in the activation form of the weight type, x_stride bytes apart
  int64_t x_stride;
  int32_t n_rows;
  float* out;  // out_stride floats from row to row
  int64_t out_stride;
  int64_t out_cols;             // columns that exist; the last panel may be padded beyond
  bool accumulate;              // add to out instead of writing it
  const std::byte* next_panel;  // what the thread will read after this job, to be fetched early; or null
  float* partial;  // room for n_rows x (n_panels, rounded up to an even number) x 16 sums, so that a wide
                   // product can be cut along the input dimension; or null
};

// Where one KV head of one page lies; elements are int16, or int8 for Q8_0, with a float scale a position.
//   K  [tile of 16 positions][head_dim / 2][16][2]   positions in lanes, so scores need no horizontal sum
//   V  [pair of positions][head_dim][2]
struct KvPageView {
  const std::byte* k;
  const std::byte* v;
  const float* k_scale;
  const float* v_scale;
};

// Running softmax of one query: maximum (base 2), sum of weights, weighted sum of values.
struct AttentionState {
  float max;
  float sum;
};

// A group of queries that share a KV head attends to positions [first_position, last_position) of pages.
struct AttentionJob {
  int32_t head_dim;
  int32_t n_queries;
  const int16_t* q;         // (n_queries, head_dim), as quantize_vector() makes them
  const float* q_scale;     // (n_queries) times log2(e) / sqrt(head_dim)
  const int64_t* first;     // (n_queries) first visible absolute position of each query
  const int64_t* last;      // (n_queries) one past the last visible one
  const KvPageView* pages;  // consecutive pages; page i covers positions base + 64 i ...
  const KvPageView* after;  // the page that the thread attends to after these, to be fetched early; or null
  int64_t base;
  int32_t n_pages;
  AttentionState* state;  // (n_queries), updated
  float* out;             // (n_queries, head_dim), unnormalised, updated
};

using GemmKernel = void (*)(const GemmJob& job);

// From kResidentRows on, a product keeps the weights of a job in the second-level cache, kResidentPanels
// panels, of which kResidentBytes at a time, and the activations pass. With fewer rows the weights pass:
// callers hand out jobs of about kStreamedBytes of them, and no tile reads many more before the next rows do.
// At most kNearRows rows read them as one stream, kNearBytes ahead.
inline constexpr int32_t kResidentRows = 64;
inline constexpr int32_t kNearRows = 8;
inline constexpr int64_t kNearBytes = 6 << 10;
inline constexpr int64_t kResidentPanels = 8;
inline constexpr int64_t kResidentBytes = 448 << 10;
inline constexpr int64_t kStreamedBytes = 128 << 10;

struct Kernels {
  const char* name;
  GemmKernel gemm[31];  // by QuantType; null where no such type

  // Quantises `cols` floats; cols must be a multiple of 256 (q256), 32 (q64, padded to 64 with zeros) or 64
  // (q128, padded to 128).
  // A value that is not finite makes the row's scales NaN.
  void (*quantize_q256)(const float* x, int64_t cols, std::byte* out);
  void (*quantize_q64)(const float* x, int64_t cols, std::byte* out);
  void (*quantize_q128)(const float* x, int64_t cols, std::byte* out);

  // out = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t cols, float* out);
  // out = silu(gate) .* up;   n is a multiple of 16
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* out);
  // x[2m], x[2m + 1] rotated by cos[2m], sin[2m]; sin is negated at even indices. In place.
  void (*rope)(float* x, const float* cos, const float* sin, int32_t head_dim);
  // out = x * factor
  void (*scale)(const float* x, float factor, int64_t n, float* out);
  // Integers with one scale: x[i] ~ scale * out[i]; return the scale, NaN if an x is not finite.
  // vector_to_i16 is for dot products with another such vector, see quantize_vector().
  float (*to_i8)(const float* x, int64_t n, int8_t* out);
  float (*value_to_i16)(const float* x, int64_t n, int16_t* out);
  float (*vector_to_i16)(const float* x, int64_t n, int16_t* out);

  void (*attend_i16)(const AttentionJob& job);
  void (*attend_i8)(const AttentionJob& job);
  // Merges a later chunk of positions into `state`, `out`.
  void (*merge_attention)(AttentionState* state, float* out, const AttentionState* later,
                          const float* later_out, int32_t n_queries, int32_t head_dim);
};

extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;

// BF16 weights times activations rounded to bf16: not the bits of the tables, see isa.cc.
void gemm_avx512bf16(const GemmJob& job);

}  // namespace maestrale
