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

Model::Model(ModelConfig config, std::vector<Stage> stages, Weights weights)
    : config_(std::move(config)), stages_(std::move(stages)), weights_(std::move(weights)) {}

std::vector<Model::Activation> Model::activations_of(const ModelConfig& c, bool computes_logits) {
  const int64_t q = int64_t(c.n_heads) * c.head_dim, kv = int64_t(c.n_kv_heads) * c.head_dim;
  std::vector<Activation> all{{&Activations::x, c.dim},
                              {&Activations::h, c.dim},
                              {&Activations::q, q},
                              {&Activations::k, kv},
                              {&Activations::v, kv},
                              {&Activations::attention, q},
                              {&Activations::ffn, c.hidden_dim},
                              {&Activations::up, c.hidden_dim}};
  if (computes_logits) all.push_back({&Activations::logits, c.vocab_size});
  return all;
}

uint64_t Model::workspace_bytes(const ModelConfig& config, Backend& backend, bool computes_logits,
                                int32_t max_rows, const KvConfig& kv) {
  int64_t row = 0, widest = 0;
  for (const Activation& activation : activations_of(config, computes_logits)) {
    row += activation.cols;
    if (activation.tensor != &Activations::logits) widest = std::max(widest, activation.cols);
  }
  return uint64_t(max_rows) * uint64_t(row) * sizeof(float) + backend.scratch_bytes(kv, max_rows, widest);
}

void Model::prepare(int32_t max_rows, const KvConfig& kv) {
  const ModelConfig& c = config_;
  std::vector<double> inv_freq(size_t(c.head_dim) / 2);
  for (size_t m = 0; m < inv_freq.size(); ++m)
    inv_freq[m] = std::pow(c.rope_theta, -2.0 * double(m) / double(c.head_dim));
  for (const Stage& stage : stages_) {
    Backend& b = *stage.backend;
    Activations& a = activations_.emplace_back();
    for (const auto& [tensor, cols] : activations_of(c, &stage == &stages_.back()))
      a.*tensor = b.allocate(max_rows, cols);
    KvConfig own = kv;
    own.n_layers = stage.end_layer - stage.first_layer;
    b.configure_kv(own);
    b.set_rope(inv_freq);
  }
}

std::span<const float> Model::forward(const Batch& batch, std::span<const int32_t> output_rows,
                                      const IsCancelled& is_cancelled) {
  if (!compute(batch, output_rows, is_cancelled)) return {};
  return backend().read(activations_.back().logits, int64_t(output_rows.size()));
}

std::vector<LogitRow> Model::forward(const Batch& batch, std::span<const int32_t> output_rows,
                                     std::span<const RowRequest> requests, const IsCancelled& is_cancelled) {
  if (!compute(batch, output_rows, is_cancelled)) return {};
  return backend().read_logits(activations_.back().logits, requests);
}

std::span<const float> Model::logits_row(int64_t i) {
  return backend().read_logits_row(activations_.back().logits, i);
}

bool Model::compute(const Batch& full_batch, std::span<const int32_t> output_rows,
                    const IsCancelled& is_cancelled) {
  const float eps = config_.norm_eps;
  Reduction reduced;  // storage of `batch` after a cancellation
  const Batch* batch = &full_batch;
  std::vector<bool> cancelled(full_batch.sequences.size());
  std::vector<int32_t> row_now(size_t(full_batch.n_rows()));  // of each original row; -1: gone
  for (int32_t r = 0; r < full_batch.n_rows(); ++r) row_now[size_t(r)] = r;
  AdaptedProducts products(weights_);
  const auto begin = [&](size_t stage) {
    Backend& b = *stages_[stage].backend;
    b.begin(*batch);
    products.set_rows(stage, b, adapters_of_rows(*batch));
  };

  // Takes the rows of newly cancelled sequences out of the batch; false when nothing is left.
  const auto drop_cancelled = [&](size_t stage, Tensor x) {
    bool changed = false;
    for (size_t s = 0; s < cancelled.size(); ++s)
      if (!cancelled[s] && is_cancelled(s)) cancelled[s] = changed = true;
    if (!changed) return true;
    Reduction next = without(*batch, cancelled);
    if (next.kept_rows.empty()) return false;
    if (x.data != nullptr) stages_[stage].backend->gather_rows(x, next.kept_rows, x);
    std::vector<int32_t> moved(size_t(batch->n_rows()), -1);
    for (size_t i = 0; i < next.kept_rows.size(); ++i) moved[size_t(next.kept_rows[i])] = int32_t(i);
    for (int32_t& row : row_now)
      if (row >= 0) row = moved[size_t(row)];
    reduced = std::move(next);
    batch = &reduced.batch;
    begin(stage);
    return true;
  };

  begin(0);
  if (!drop_cancelled(0, {})) return false;
  products.embed(activations_.front().x);
  for (size_t s = 0; s < stages_.size(); ++s) {
    const Stage& stage = stages_[s];
    Backend& b = *stage.backend;
    const Activations& a = activations_[s];
    if (s > 0) {  // x goes to another device
      const std::span<const float> x = stages_[s - 1].backend->read(activations_[s - 1].x, batch->n_rows());
      begin(s);
      b.write(x, a.x);
    }
    for (int32_t l = stage.first_layer; l < stage.end_layer; ++l) {
      const size_t layer = size_t(l);
      const int32_t kv_layer = l - stage.first_layer;
      const LayerWeights& w = weights_.layers[layer];
      if (!drop_cancelled(s, a.x)) return false;

      b.rms_norm(a.x, w.attention_norm, eps, a.h);
      products.project_heads(layer, kv_layer, a.h, a.q, a.k, a.v);
      b.attention(kv_layer, a.q, a.attention);
      products.matmul_add(layer, a.attention, kO, a.x, a.h);

      b.rms_norm(a.x, w.ffn_norm, eps, a.h);
      products.swiglu(layer, a.h, a.ffn, a.up);
      products.matmul_add(layer, a.ffn, kDown, a.x, a.h);
    }
  }
  Backend& b = backend();
  const Activations& a = activations_.back();
  const size_t last = stages_.size() - 1;
  if (output_rows.empty() || !drop_cancelled(last, a.x)) return false;

  // Rows that left keep a place in the result: row 0 stands in, the caller ignores it.
  std::vector<int32_t> wanted;
  for (int32_t row : output_rows) wanted.push_back(std::max(0, row_now[size_t(row)]));
  const std::vector<const Adapter*> adapters = adapters_of_rows(*batch);
  std::vector<const Adapter*> wanted_adapters;
  for (int32_t row : wanted) wanted_adapters.push_back(adapters[size_t(row)]);
  products.set_rows(last, b, wanted_adapters);
  b.gather_rows(a.x, wanted, a.h);
  b.rms_norm(a.h, weights_.final_norm, eps, a.x);
  products.output(a.x, a.logits);
  return true;
}

}  // namespace maestrale
