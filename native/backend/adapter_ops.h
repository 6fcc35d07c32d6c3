// SPDX-License-Identifier: Apache-2.0
// What a device must do to run LoRA adapters beside the base weights: hold their matrices, and change the
// rows of a batch that use one. Rows of other adapters and of none are not touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

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

// The matrices of one adapter on one device, freed with this object: when no batch uses it, by the thread
// that computes or when that has ended.
class AdapterStorage {
 public:
  virtual ~AdapterStorage() = default;
  virtual Matrix load_lora_a(const MatrixSource& source) = 0;  // of floats, as lora_b
  virtual Matrix load_lora_b(const MatrixSource& source) = 0;
  virtual Matrix load_matrix(const MatrixSource& source) = 0;  // for matmul_rows, of floats
  virtual Matrix load_table(const MatrixSource& source) = 0;
  virtual Tensor load_vector(std::span<const float> values) = 0;
  // After all that: what the adapter makes of the products, which are told by their places in this list.
  virtual void set_products(std::vector<LowRank> products) { products_ = std::move(products); }
  const LowRank& product(size_t number) const { return products_[number]; }
  virtual uint64_t bytes() const = 0;  // in use so far

 private:
  std::vector<LowRank> products_;
};

// Rows of a batch that use an adapter.
struct AdapterRows {
  const AdapterStorage* adapter;
  RowRange rows;

  bool operator==(const AdapterRows&) const = default;
};

struct NumberedProduct {
  size_t number;  // see AdapterStorage::set_products
  Tensor out;     // holds x * w^T, cols = rows of w
};

class AdapterOps {
 public:
  virtual ~AdapterOps() = default;

  // Room for `bytes`: what Backend::matrix_bytes and table_bytes say, 4 a value of a vector, each rounded up
  // to a multiple of 64. The storage may be filled on any thread while the backend computes.
  virtual std::unique_ptr<AdapterStorage> reserve_adapter(uint64_t bytes) = 0;

  // ---- operations, on the engine's thread ------------------------------------------------------------
  // Announces the rows with adapters, ascending, among all that operations work on from now on.
  virtual void set_adapters(std::span<const AdapterRows> groups) = 0;
  // out[r] = factor .* (out[r] + scaling * (x[r] * lora_a^T) * lora_b^T) for the rows whose adapters change
  // the product; all products of a call, three at most, share x.
  virtual void add_low_rank(Tensor x, std::span<const NumberedProduct> products) = 0;
  // That, then residual += product.out; and out = silu(gate.out) .* up.out, where out may be gate.out: of all
  // rows, those without an adapter with the bits of Backend::matmul_add and swiglu. product.out, gate.out and
  // up.out are left as anything.
  virtual void add_low_rank_sum(Tensor x, const NumberedProduct& product, Tensor residual) = 0;
  virtual void add_low_rank_gate(Tensor x, const NumberedProduct& gate, const NumberedProduct& up,
                                 Tensor out) = 0;
  // out[r] = table[batch.tokens[r]] for r in `rows`
  virtual void embed_rows(const Matrix& table, RowRange rows, Tensor out) = 0;
  // out[r] = x[r] * weight^T for r in `rows`
  virtual void matmul_rows(Tensor x, RowRange rows, const Projection& projection) = 0;
};

}  // namespace maestrale
