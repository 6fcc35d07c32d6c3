// SPDX-License-Identifier: Apache-2.0
// A loaded model: its config, its weights on one or several devices, and the forward pass over a batch.
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

// Consecutive layers on one device. The first stage of a model has the embedding too, the last one the final
// norm and the output matrix.
struct Stage {
  std::unique_ptr<Backend> backend;
  int32_t first_layer = 0, end_layer = 0;  // [first, end)
};

class Model {
 public:
  // `stages` cover the layers in order.
  Model(ModelConfig config, std::vector<Stage> stages, Weights weights);

  const ModelConfig& config() const { return config_; }
  const std::vector<Stage>& stages() const { return stages_; }
  // Of the last stage, which computes the logits.
  Backend& backend() { return *stages_.back().backend; }

  // Allocates activations for batches of up to `max_rows` rows and configures the KV cache, in which every
  // stage holds its layers of each page.
  void prepare(int32_t max_rows, const KvConfig& kv);
  // Bytes that prepare() and the steps after it take at most of `backend`, pages aside, when it has a stage
  // of such a model, the last one if `computes_logits`.
  static uint64_t workspace_bytes(const ModelConfig& config, Backend& backend, bool computes_logits,
                                  int32_t max_rows, const KvConfig& kv);

  // Asked between layers: has this sequence (index into batch.sequences) been cancelled?
  using IsCancelled = std::function<bool(size_t sequence)>;

  // Runs one batch. Returns the logits of `output_rows` (ascending rows of the batch) as
  // (output_rows.size(), vocab_size), valid until the next call. Rows of sequences that were
  // cancelled meanwhile leave the batch between layers; their logits are unspecified. Returns an empty span
  // when nothing was asked for or every sequence was cancelled.
  std::span<const float> forward(const Batch& batch, std::span<const int32_t> output_rows,
                                 const IsCancelled& is_cancelled);
  // The same for draws: of output_rows[i] comes what requests[i] asks for, or more.
  std::vector<LogitRow> forward(const Batch& batch, std::span<const int32_t> output_rows,
                                std::span<const RowRequest> requests, const IsCancelled& is_cancelled);
  // After that all logits of output_rows[i], valid until the next call.
  std::span<const float> logits_row(int64_t i);

 private:
  // All of forward() but reading the logits; false when there are none.
  bool compute(const Batch& batch, std::span<const int32_t> output_rows, const IsCancelled& is_cancelled);
  struct Activations {
    Tensor x, h, q, k, v, attention, ffn, up, logits;
  };
  struct Activation {
    Tensor Activations::*tensor;
    int64_t cols;
  };
  static std::vector<Activation> activations_of(const ModelConfig& config, bool computes_logits);
  ModelConfig config_;
  std::vector<Stage> stages_;
  std::vector<Activations> activations_;  // of each stage
  Weights weights_;
};

}  // namespace maestrale
