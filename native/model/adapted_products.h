// SPDX-License-Identifier: Apache-2.0
// The matrix products of the forward pass, with what the adapters of a batch make of them. In a batch without
// adapters each is one call of the backend.
//
// A product that is fused with what follows it is split where an adapter changes it. The parts give the bits
// of the whole, so a row does not depend on whether another one has an adapter.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/adapter.h"
#include "model/model.h"

namespace maestrale {

// A weight of a layer and what adapters call its product.
struct LayerPart {
  Matrix LayerWeights::*weight;
  LayerMatrix matrix;
};
inline constexpr LayerPart kQ{&LayerWeights::wq, LayerMatrix::kQ};
inline constexpr LayerPart kK{&LayerWeights::wk, LayerMatrix::kK};
inline constexpr LayerPart kV{&LayerWeights::wv, LayerMatrix::kV};
inline constexpr LayerPart kO{&LayerWeights::wo, LayerMatrix::kO};
inline constexpr LayerPart kGate{&LayerWeights::w_gate, LayerMatrix::kGate};
inline constexpr LayerPart kUp{&LayerWeights::w_up, LayerMatrix::kUp};
inline constexpr LayerPart kDown{&LayerWeights::w_down, LayerMatrix::kDown};

struct LayerProduct {
  LayerPart part;
  Tensor out;
};

class AdaptedProducts {
 public:
  explicit AdaptedProducts(const Weights& weights) : weights_(weights) {}

  // What the following calls work on: the device that has the layers of a stage, and the adapter of each row,
  // nullptr for none.
  void set_rows(size_t stage, Backend& backend, const std::vector<const Adapter*>& adapter_of_row);

  void embed(Tensor out);
  // p.out = x * w^T for every product p, all of `layer`
  void matmul(size_t layer, Tensor x, std::initializer_list<LayerProduct> products);
  // q, k and v of `layer`, rotated, the latter two in layer `kv_layer` of the cache
  void project_heads(size_t layer, int32_t kv_layer, Tensor x, Tensor q, Tensor k, Tensor v);
  // residual += x * w^T; `scratch` is as wide as residual
  void matmul_add(size_t layer, Tensor x, LayerPart part, Tensor residual, Tensor scratch);
  // out = silu(x * w_gate^T) .* (x * w_up^T); `scratch` is as wide as out
  void swiglu(size_t layer, Tensor x, Tensor out, Tensor scratch);
  void output(Tensor x, Tensor logits);

 private:
  struct Group {  // neighbouring rows of one adapter
    const Adapter* adapter;
    RowRange rows;
  };
  bool changed(size_t number) const;
  bool changed(size_t layer, LayerPart part) const { return changed(product_number(layer, part.matrix)); }
  void add_deltas(Tensor x, std::span<const NumberedProduct> products);
  AdapterOps& ops();  // of the device, which knows the rows

  Backend* backend_ = nullptr;
  const Weights& weights_;
  std::vector<Group> groups_;
  std::vector<AdapterRows> rows_;  // the same for the device
  size_t n_rows_ = 0;              // those without an adapter included
  bool announced_ = false;         // to the device
};

// The adapter of every row of `batch`.
std::vector<const Adapter*> adapters_of_rows(const Batch& batch);

}  // namespace maestrale
