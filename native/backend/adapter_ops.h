// SPDX-License-Identifier: Apache-2.0
// What a device must do to run LoRA adapters beside the base weights: hold their matrices, and change the
// rows of a batch that use one. Rows of other adapters and of none are not touched.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/batch.h"
#include "backend/tensor.h"
#include "quant/matrix_source.h"

namespace maestrale {

// What an adapter makes of one product x * w^T (LoRA, Hu 2021):
//   x * w^T + scaling * (x * lora_a^T) * lora_b^T
// and of that, with a factor per output, factor .* that (DoRA, Liu 2024). No data: the product stays as it
// is.
struct LowRank {
  Matrix lora_a;  // (rank, cols of w)
  Matrix lora_b;  // (rows of w, rank rounded up to a multiple of kRankStep with zero columns)
  float scaling = 0.0f;
  Tensor factor;  // (rows of w), may have no data

  explicit operator bool() const { return lora_a.data != nullptr; }
};
inline constexpr int64_t kRankStep = 16;

struct LowRankProduct {
  const LowRank* delta;
  Tensor out;  // holds x * w^T, cols = rows of w
};

// The matrices of one adapter, freed with this object.
class AdapterStorage {
 public:
  virtual ~AdapterStorage() = default;
  virtual Matrix load_matrix(const MatrixSource& source) = 0;  // of floats
  virtual Matrix load_table(const MatrixSource& source) = 0;
  virtual Tensor load_vector(std::span<const float> values) = 0;
  virtual uint64_t bytes() const = 0;  // in use so far
};

class AdapterOps {
 public:
  virtual ~AdapterOps() = default;

  // Room for `bytes`: what Backend::matrix_bytes and table_bytes say, 4 a value of a vector, each rounded up
  // to a multiple of 64. The storage may be filled on any thread while the backend computes, and freed when
  // no batch uses it.
  virtual std::unique_ptr<AdapterStorage> reserve_adapter(uint64_t bytes) = 0;

  // ---- operations, on the engine's thread ------------------------------------------------------------
  // out[r] = factor .* (out[r] + scaling * (x[r] * lora_a^T) * lora_b^T) for r in `rows`; all products of a
  // call share x.
  virtual void add_low_rank(Tensor x, RowRange rows, std::span<const LowRankProduct> products) = 0;
  // out[r] = table[batch.tokens[r]] for r in `rows`
  virtual void embed_rows(const Matrix& table, RowRange rows, Tensor out) = 0;
  // out[r] = x[r] * weight^T for r in `rows`
  virtual void matmul_rows(Tensor x, RowRange rows, const Projection& projection) = 0;

  // The second halves of Backend::matmul_add and swiglu, with the bits they give: all rows.
  virtual void add(Tensor x, Tensor residual) = 0;                  // residual += x
  virtual void apply_gate(Tensor gate, Tensor up, Tensor out) = 0;  // out = silu(gate) .* up; may be in place
};

}  // namespace maestrale
