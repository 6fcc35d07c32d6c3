// SPDX-License-Identifier: Apache-2.0
// A LoRA adapter in a backend's memory, ready to change the rows of a batch. Immutable, so any number of
// sequences may use it at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/adapter_ops.h"

namespace maestrale {

// Named as the weights of LayerWeights that they change; those without data change nothing.
struct LayerAdapter {
  LowRank wq, wk, wv, wo, w_gate, w_up, w_down;
};

struct Adapter {
  std::vector<LayerAdapter> layers;
  LowRank output;
  // In place of the base model's, with data where the adapter brings its own.
  Matrix token_embedding;  // (vocab_size, dim), a table
  Matrix own_output;       // (vocab_size, dim)

  int64_t rank = 0;         // the highest of its matrices
  uint64_t parameters = 0;  // values in its file
  uint64_t bytes() const { return storage->bytes(); }

  std::unique_ptr<AdapterStorage> storage;
};

}  // namespace maestrale
