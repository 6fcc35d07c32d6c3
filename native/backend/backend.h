// SPDX-License-Identifier: Apache-2.0
// The operations a compute device offers to the forward pass. One call is one operation over all
// rows of the batch; there is no graph. CPU and CUDA implement it and pass the same contract tests.
//
// Handles (Tensor, Matrix) are views: the backend owns all memory and frees it when it is destroyed.
// All calls come from one thread, the engine's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "backend/batch.h"
#include "backend/kv_config.h"
#include "backend/tensor.h"
#include "base/draw_request.h"
#include "base/top_logits.h"
#include "quant/matrix_source.h"
#include "quant/types.h"

namespace maestrale {

class AdapterOps;

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view device() const = 0;  // "cpu", "cuda:0"
  virtual std::string_view isa() const = 0;     // kernel table in use, e.g. "avx512vnni"
  virtual int32_t threads() const = 0;          // CPU threads computing, the caller included

  // ---- weights -------------------------------------------------------------------------------
  // Bytes load_matrix / load_table will take from the reserved storage for such a matrix.
  virtual uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols) const = 0;
  virtual uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols) const = 0;
  virtual void reserve_weights(uint64_t bytes) = 0;            // once, before the first load
  virtual Matrix load_matrix(const MatrixSource& source) = 0;  // for matmul
  virtual Matrix load_table(const MatrixSource& source) = 0;   // for embed
  virtual Tensor load_vector(std::span<const float> values) = 0;

  // ---- memory of the forward pass --------------------------------------------------------------
  virtual Tensor allocate(int64_t rows, int64_t cols) = 0;
  virtual void configure_kv(const KvConfig& config) = 0;
  virtual uint64_t kv_page_bytes(const KvConfig& config) const = 0;
  // Bytes taken at most beside weights, pages and what allocate() is asked for, when batches have up to
  // `max_rows` rows and inputs of products up to `max_cols` columns.
  virtual uint64_t scratch_bytes(const KvConfig& config, int64_t max_rows, int64_t max_cols) const = 0;
  // While `*flag` is true, operations return early and leave garbage; the engine sets it only when
  // every sequence of the running step has been cancelled, and then throws the step away.
  virtual void set_interrupt(const std::atomic<bool>* flag) = 0;

  // ---- operations ------------------------------------------------------------------------------
  // Announces the batch that the following operations work on; it must outlive them.
  virtual void begin(const Batch& batch) = 0;
  // out[r] = table[batch.tokens[r]]
  virtual void embed(const Matrix& table, Tensor out) = 0;
  // out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight                        (RMSNorm, Zhang 2019)
  virtual void rms_norm(Tensor x, Tensor weight, float eps, Tensor out) = 0;
  // p.out = x * p.weight^T for every projection p
  virtual void matmul(Tensor x, std::span<const Projection> projections) = 0;
  // residual += x * weight^T
  virtual void matmul_add(Tensor x, const Matrix& weight, Tensor residual) = 0;
  // out = silu(x * w_gate^T) .* (x * w_up^T)                                 (SwiGLU, Shazeer 2020)
  // `scratch` is as large as out.
  virtual void swiglu(Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out, Tensor scratch) = 0;
  // Rotates neighbouring pairs (2m, 2m+1) of q and k by position * inv_freq[m] (RoPE, Su 2021, in
  // Mistral's own row order), q in place; stores the rotated k and v in the cache of `layer`.
  virtual void rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) = 0;
  // Both: the products that make q, k and v, then rope_and_append of their outputs.
  virtual void project_heads(int32_t layer, Tensor x, std::span<const Projection, 3> qkv) {
    matmul(x, qkv);
    rope_and_append(layer, qkv[0].out, qkv[1].out, qkv[2].out);
  }
  // Causal grouped-query attention of q over the cache of `layer`, within the sliding window.
  virtual void attention(int32_t layer, Tensor q, Tensor out) = 0;
  // out[i] = x[rows[i]]; `out` may be x itself when rows ascends. The operations that follow work on
  // rows.size() rows, until the next begin().
  virtual void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) = 0;
  // The first `n_rows` rows of x in host memory, valid until the next operation. Synchronises.
  virtual std::span<const float> read(Tensor x, int64_t n_rows) = 0;
  // Whether read_logits() draws where it is asked to.
  virtual bool draws() const { return false; }
  // Of the first rows of the logits x what is asked for, valid until the next begin(); all of a row serves
  // any request. Synchronises.
  virtual std::vector<LogitRow> read_logits(Tensor x, std::span<const RowRequest> requests) {
    const std::span<const float> all = read(x, int64_t(requests.size()));
    std::vector<LogitRow> rows(requests.size());
    for (size_t i = 0; i < rows.size(); ++i) rows[i].all = all.subspan(i * size_t(x.cols), size_t(x.cols));
    return rows;
  }
  // After that all of row i, of which only a part came, until the next call or begin(). Synchronises.
  virtual std::span<const float> read_logits_row(Tensor x, int64_t i) {
    return read(x, i + 1).subspan(size_t(i * x.cols));
  }
  // The other way, before any other operation of a batch: x = rows in host memory, which may change when the
  // call returns.
  virtual void write(std::span<const float> rows, Tensor x) = 0;

  // inv_freq[m] for m < head_dim / 2, set once after configure_kv.
  virtual void set_rope(std::span<const double> inv_freq) = 0;

  // What LoRA adapters need beyond.
  virtual AdapterOps& adapters() = 0;
};

}  // namespace maestrale
