// SPDX-License-Identifier: Apache-2.0
// The forward pass of Mistral 7B (Jiang 2023): read this file first.
#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "model/adapted_products.h"

namespace maestrale {
namespace {

// The rows of `batch` that belong to sequences which go on; what forward() works on after a cancellation.
struct Reduction {
  Batch batch;
  std::vector<int32_t> kept_rows;  // ascending, of the batch before
};

Reduction without(const Batch& batch, const std::vector<bool>& cancelled) {
  Reduction reduced;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    BatchSequence sequence = batch.sequences[s];
    if (cancelled[s] || sequence.n_rows == 0) {
      sequence.first_row =
          reduced.batch.n_rows();  // stays in place, without rows, so that indices keep their meaning
      sequence.n_rows = 0;
    } else {
      const int32_t first = sequence.first_row;
      sequence.first_row = reduced.batch.n_rows();
      for (int32_t i = 0; i < sequence.n_rows; ++i) {
        reduced.kept_rows.push_back(first + i);
        reduced.batch.tokens.push_back(batch.tokens[size_t(first + i)]);
      }
    }
    reduced.batch.sequences.push_back(sequence);
  }
  return reduced;
}

}  // namespace

Model::Model(ModelConfig config, std::unique_ptr<Backend> backend, Weights weights)
    : config_(std::move(config)), backend_(std::move(backend)), weights_(std::move(weights)) {}

void Model::prepare(int32_t max_rows, const KvConfig& kv) {
  const ModelConfig& c = config_;
  a_.x = backend_->allocate(max_rows, c.dim);
  a_.h = backend_->allocate(max_rows, c.dim);
  a_.q = backend_->allocate(max_rows, int64_t(c.n_heads) * c.head_dim);
  a_.k = backend_->allocate(max_rows, int64_t(c.n_kv_heads) * c.head_dim);
  a_.v = backend_->allocate(max_rows, int64_t(c.n_kv_heads) * c.head_dim);
  a_.attention = backend_->allocate(max_rows, int64_t(c.n_heads) * c.head_dim);
  a_.ffn = backend_->allocate(max_rows, c.hidden_dim);
  if (backend_->adapters() != nullptr) a_.up = backend_->allocate(max_rows, c.hidden_dim);
  a_.logits = backend_->allocate(max_rows, c.vocab_size);
  backend_->configure_kv(kv);
  std::vector<double> inv_freq(size_t(c.head_dim) / 2);
  for (size_t m = 0; m < inv_freq.size(); ++m)
    inv_freq[m] = std::pow(c.rope_theta, -2.0 * double(m) / double(c.head_dim));
  backend_->set_rope(inv_freq);
}

std::span<const float> Model::forward(const Batch& full_batch, std::span<const int32_t> output_rows,
                                      const IsCancelled& is_cancelled) {
  Backend& b = *backend_;
  const float eps = config_.norm_eps;
  Reduction reduced;  // storage of `batch` after a cancellation
  const Batch* batch = &full_batch;
  std::vector<bool> cancelled(full_batch.sequences.size());
  std::vector<int32_t> row_now(size_t(full_batch.n_rows()));  // of each original row; -1: gone
  for (int32_t r = 0; r < full_batch.n_rows(); ++r) row_now[size_t(r)] = r;
  AdaptedProducts products(b, weights_);
  const auto begin = [&] {
    b.begin(*batch);
    products.set_rows(adapters_of_rows(*batch));
  };

  // Takes the rows of newly cancelled sequences out of the batch; false when nothing is left.
  const auto drop_cancelled = [&](Tensor x) {
    bool changed = false;
    for (size_t s = 0; s < cancelled.size(); ++s)
      if (!cancelled[s] && is_cancelled(s)) cancelled[s] = changed = true;
    if (!changed) return true;
    Reduction next = without(*batch, cancelled);
    if (next.kept_rows.empty()) return false;
    if (x.data != nullptr) b.gather_rows(x, next.kept_rows, x);
    std::vector<int32_t> moved(size_t(batch->n_rows()), -1);
    for (size_t i = 0; i < next.kept_rows.size(); ++i) moved[size_t(next.kept_rows[i])] = int32_t(i);
    for (int32_t& row : row_now)
      if (row >= 0) row = moved[size_t(row)];
    reduced = std::move(next);
    batch = &reduced.batch;
    begin();
    return true;
  };

  begin();
  if (!drop_cancelled({})) return {};
  products.embed(a_.x);
  for (size_t l = 0; l < weights_.layers.size(); ++l) {
    const LayerWeights& w = weights_.layers[l];
    if (!drop_cancelled(a_.x)) return {};

    b.rms_norm(a_.x, w.attention_norm, eps, a_.h);
    products.matmul(l, a_.h, {{kQ, a_.q}, {kK, a_.k}, {kV, a_.v}});
    b.rope_and_append(int32_t(l), a_.q, a_.k, a_.v);
    b.attention(int32_t(l), a_.q, a_.attention);
    products.matmul_add(l, a_.attention, kO, a_.x, a_.h);

    b.rms_norm(a_.x, w.ffn_norm, eps, a_.h);
    products.swiglu(l, a_.h, a_.ffn, a_.up);
    products.matmul_add(l, a_.ffn, kDown, a_.x, a_.h);
  }
  if (output_rows.empty() || !drop_cancelled(a_.x)) return {};

  // Rows that left keep a place in the result: row 0 stands in, the caller ignores it.
  std::vector<int32_t> wanted;
  for (int32_t row : output_rows) wanted.push_back(std::max(0, row_now[size_t(row)]));
  const std::vector<const Adapter*> adapters = adapters_of_rows(*batch);
  std::vector<const Adapter*> wanted_adapters;
  for (int32_t row : wanted) wanted_adapters.push_back(adapters[size_t(row)]);
  products.set_rows(wanted_adapters);
  b.gather_rows(a_.x, wanted, a_.h);
  b.rms_norm(a_.h, weights_.final_norm, eps, a_.h);
  products.output(a_.h, a_.logits);
  return b.read(a_.logits, int64_t(output_rows.size()));
}

}  // namespace maestrale
