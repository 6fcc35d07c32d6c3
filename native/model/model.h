// SPDX-License-Identifier: Apache-2.0
// A loaded model: its config, its weights on a backend, and the forward pass over a batch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"

namespace maestrale {

struct LayerWeights {
  Tensor attention_norm;  // (dim)
  Matrix wq;              // (n_heads * head_dim, dim)
  Matrix wk, wv;          // (n_kv_heads * head_dim, dim)
  Matrix wo;              // (dim, n_heads * head_dim)
  Tensor ffn_norm;        // (dim)
  Matrix w_gate, w_up;    // (hidden_dim, dim)
  Matrix w_down;          // (dim, hidden_dim)
};

struct Weights {
  Matrix token_embedding;  // (vocab_size, dim), a table
  std::vector<LayerWeights> layers;
  Tensor final_norm;  // (dim)
  Matrix output;      // (vocab_size, dim)
};

class Model {
 public:
  Model(ModelConfig config, std::unique_ptr<Backend> backend, Weights weights);

  const ModelConfig& config() const { return config_; }
  Backend& backend() { return *backend_; }

  // Allocates activations for batches of up to `max_rows` rows and configures the KV cache.
  void prepare(int32_t max_rows, const KvConfig& kv);

  // Asked between layers: has this sequence (index into batch.sequences) been cancelled?
  using IsCancelled = std::function<bool(size_t sequence)>;

  // Runs one batch. Returns the logits of `output_rows` (ascending rows of the batch) as
  // (output_rows.size(), vocab_size), valid until the next call. Rows of sequences that were
  // cancelled meanwhile leave the batch between layers; their logits are unspecified. Returns an empty span
  // when nothing was asked for or every sequence was cancelled.
  std::span<const float> forward(const Batch& batch, std::span<const int32_t> output_rows,
                                 const IsCancelled& is_cancelled);

 private:
  ModelConfig config_;
  std::unique_ptr<Backend> backend_;
  Weights weights_;
  struct Activations {
    Tensor x, h, q, k, v, attention, ffn, up, logits;
  } a_;
};

}  // namespace maestrale
