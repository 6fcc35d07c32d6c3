// SPDX-License-Identifier: Apache-2.0
#include "model/adapted_products.h"

#include <algorithm>
#include <utility>

namespace maestrale {

std::vector<const Adapter*> adapters_of_rows(const Batch& batch) {
  std::vector<const Adapter*> adapters(size_t(batch.n_rows()));
  for (const BatchSequence& sequence : batch.sequences)
    std::fill_n(adapters.begin() + sequence.first_row, sequence.n_rows, sequence.adapter);
  return adapters;
}

void AdaptedProducts::set_rows(size_t stage, Backend& backend,
                               const std::vector<const Adapter*>& adapter_of_row) {
  const Backend* backend_before = std::exchange(backend_, &backend);
  const std::vector<AdapterRows> rows_before = std::exchange(rows_, {});
  const size_t n_rows_before = std::exchange(n_rows_, adapter_of_row.size());
  groups_.clear();
  for (size_t row = 0; row < adapter_of_row.size(); ++row) {
    const Adapter* adapter = adapter_of_row[row];
    if (adapter == nullptr) continue;
    if (row == 0 || adapter_of_row[row - 1] != adapter) groups_.push_back({adapter, {int32_t(row), 0}});
    ++groups_.back().rows.count;
  }
  for (const Group& group : groups_) rows_.push_back({group.adapter->storages[stage].get(), group.rows});
  if (backend_ != backend_before || rows_ != rows_before || n_rows_ != n_rows_before) announced_ = false;
}

bool AdaptedProducts::changed(size_t number) const {
  return std::any_of(rows_.begin(), rows_.end(),
                     [&](const AdapterRows& rows) { return bool(rows.adapter->product(number)); });
}

void AdaptedProducts::add_deltas(Tensor x, std::span<const NumberedProduct> products) {
  NumberedProduct changing[3];
  size_t n = 0;
  for (const NumberedProduct& product : products)
    if (changed(product.number)) changing[n++] = product;
  if (n == 0) return;
  ops().add_low_rank(x, {changing, n});
}

AdapterOps& AdaptedProducts::ops() {
  if (!std::exchange(announced_, true)) backend_->adapters().set_adapters(rows_);
  return backend_->adapters();
}

void AdaptedProducts::embed(Tensor out) {
  backend_->embed(weights_.token_embedding, out);
  for (const Group& group : groups_)
    if (group.adapter->token_embedding.data != nullptr)
      backend_->adapters().embed_rows(group.adapter->token_embedding, group.rows, out);
}

void AdaptedProducts::matmul(size_t layer, Tensor x, std::initializer_list<LayerProduct> products) {
  Projection projections[3];
  NumberedProduct numbered[3];
  size_t n = 0;
  for (const LayerProduct& product : products) {
    projections[n] = {&(weights_.layers[layer].*product.part.weight), product.out};
    numbered[n++] = {product_number(layer, product.part.matrix), product.out};
  }
  backend_->matmul(x, {projections, n});
  add_deltas(x, {numbered, n});
}

void AdaptedProducts::project_heads(size_t layer, int32_t kv_layer, Tensor x, Tensor q, Tensor k, Tensor v) {
  if (changed(layer, kQ) || changed(layer, kK) || changed(layer, kV)) {
    matmul(layer, x, {{kQ, q}, {kK, k}, {kV, v}});
    backend_->rope_and_append(kv_layer, q, k, v);
    return;
  }
  const LayerWeights& w = weights_.layers[layer];
  const Projection qkv[] = {{&w.wq, q}, {&w.wk, k}, {&w.wv, v}};
  backend_->project_heads(kv_layer, x, qkv);
}

void AdaptedProducts::matmul_add(size_t layer, Tensor x, LayerPart part, Tensor residual, Tensor scratch) {
  if (!changed(layer, part)) {
    backend_->matmul_add(x, weights_.layers[layer].*part.weight, residual);
    return;
  }
  const Projection projection{&(weights_.layers[layer].*part.weight), scratch};
  backend_->matmul(x, {&projection, 1});
  ops().add_low_rank_sum(x, {product_number(layer, part.matrix), scratch}, residual);
}

void AdaptedProducts::swiglu(size_t layer, Tensor x, Tensor out, Tensor scratch) {
  const LayerWeights& w = weights_.layers[layer];
  if (!changed(layer, kGate) && !changed(layer, kUp)) {
    backend_->swiglu(x, w.w_gate, w.w_up, out, scratch);
    return;
  }
  const Projection both[] = {{&w.w_gate, out}, {&w.w_up, scratch}};
  backend_->matmul(x, both);
  ops().add_low_rank_gate(x, {product_number(layer, kGate.matrix), out},
                          {product_number(layer, kUp.matrix), scratch}, out);
}

void AdaptedProducts::output(Tensor x, Tensor logits) {
  const Projection head{&weights_.output, logits};
  backend_->matmul(x, {&head, 1});
  for (const Group& group : groups_)
    if (group.adapter->own_output.data != nullptr)
      backend_->adapters().matmul_rows(x, group.rows, {&group.adapter->own_output, logits});
  const NumberedProduct change{output_number(weights_.layers.size()), logits};
  add_deltas(x, {&change, 1});
}

}  // namespace maestrale
