// SPDX-License-Identifier: Apache-2.0
// How many layers a GPU takes. It gets the last ones with the final norm and the output matrix, so that the
// hidden state changes sides once and the logits are computed where memory is fast; the CPU keeps the first
// ones and the embedding, of which a step needs a few rows only. A GPU that takes all layers has everything.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "engine/engine.h"
#include "model/config.h"
#include "model/weight_store.h"

namespace maestrale {

struct PlacementSizes {
  std::vector<uint64_t> layers;  // bytes of each layer's weights
  uint64_t embedding = 0;        // taken with all layers only
  uint64_t output = 0;           // final norm and output matrix
  uint64_t kv_layer = 0;         // what one layer of the longest sequence needs of the KV cache
  uint64_t workspace = 0;        // activations and what kernels need, see Model::workspace_bytes
};

// Of a model on `gpu` for the steps of an engine, whose max_pages is not known yet.
PlacementSizes placement_sizes(const WeightStore& weights, const ModelConfig& config, Backend& gpu,
                               const EngineConfig& engine);

// The number of layers that fit in `available` bytes together with the workspace and the cache of one longest
// sequence. Sequences beyond that take what is left: they wait when it is little, while a layer on the CPU
// slows down all.
int32_t layers_within(uint64_t available, const PlacementSizes& sizes);

// Pages that fit in what is left of `available` bytes, free on the device of `stage` after its weights were
// loaded, when the workspace has been taken. Throws Error{kOutOfMemory}.
int64_t pages_within(uint64_t available, const Stage& stage, const ModelConfig& config,
                     const EngineConfig& engine);

}  // namespace maestrale
