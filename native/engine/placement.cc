// SPDX-License-Identifier: Apache-2.0
#include "engine/placement.h"

#include <string>

#include "base/error.h"
#include "engine/memory_budget.h"
#include "engine/page_table.h"

namespace maestrale {
namespace {

int64_t pages_per_sequence(const EngineConfig& engine) {
  return pages_needed(engine.context_length, engine.sliding_window, engine.max_batch_tokens);
}

// With as many pages as the engine could use.
KvConfig kv_config(const ModelConfig& config, const EngineConfig& engine, int32_t n_layers) {
  return {n_layers,
          config.n_kv_heads,
          config.head_dim,
          engine.kv_type,
          pages_per_sequence(engine) * engine.max_sequences,
          engine.sliding_window,
          engine.context_length};
}

}  // namespace

PlacementSizes placement_sizes(const WeightStore& weights, const ModelConfig& config, Backend& gpu,
                               const EngineConfig& engine) {
  PlacementSizes sizes;
  sizes.layers.resize(size_t(config.n_layers));
  const bool tied = weights.tensors().back().role != TensorRole::kOutput;
  for (const ModelTensor& tensor : weights.tensors()) {
    const uint64_t bytes = gpu.matrix_bytes(weights.type(tensor), tensor.rows, tensor.cols);
    if (tensor.role == TensorRole::kTokenEmbedding) {
      sizes.embedding += gpu.table_bytes(weights.type(tensor), tensor.rows, tensor.cols);
      if (tied) sizes.output += bytes;
    } else if (tensor.role == TensorRole::kFinalNorm || tensor.role == TensorRole::kOutput) {
      sizes.output += bytes;
    } else {
      sizes.layers[size_t(tensor.layer)] += bytes;
    }
  }
  const KvConfig layer = kv_config(config, engine, 1);
  sizes.kv_layer = gpu.kv_page_bytes(layer) * uint64_t(pages_per_sequence(engine));
  sizes.workspace = Model::workspace_bytes(config, gpu, true, engine.max_batch_tokens, layer);
  return sizes;
}

int32_t layers_within(uint64_t available, const PlacementSizes& sizes) {
  // What the driver and other programs may still take.
  const uint64_t usable = available / 20 * 19;
  uint64_t weights = sizes.output, pages = 0;
  int32_t n = 0;
  for (size_t l = sizes.layers.size(); l-- > 0; ++n) {
    weights += sizes.layers[l] + (l == 0 ? sizes.embedding : 0);
    pages += sizes.kv_layer;
    if (weights + sizes.workspace + memory_for_pages(pages) > usable) break;
  }
  return n;
}

int64_t pages_within(uint64_t available, const Stage& stage, const ModelConfig& config,
                     const EngineConfig& engine) {
  const KvConfig kv = kv_config(config, engine, stage.end_layer - stage.first_layer);
  const bool computes_logits = stage.end_layer == config.n_layers;
  const uint64_t workspace =
      Model::workspace_bytes(config, *stage.backend, computes_logits, engine.max_batch_tokens, kv);
  if (workspace >= available)
    throw Error(ErrorCode::kOutOfMemory, "steps of " + std::to_string(engine.max_batch_tokens) +
                                             " tokens take " + std::to_string(workspace >> 20) +
                                             " MiB, but the weights have left " +
                                             std::to_string(available >> 20) + " MiB; lower maxBatchTokens");
  return kv_pages_within(available - workspace, stage.backend->kv_page_bytes(kv), pages_per_sequence(engine),
                         engine.max_sequences);
}

}  // namespace maestrale
