// SPDX-License-Identifier: Apache-2.0
// A LoRA adapter in the memory of a model's devices, ready to change the rows of a batch. Immutable, so any
// number of sequences may use it at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/adapter_ops.h"

namespace maestrale {

// The numbers of the products that an adapter can change, see AdapterStorage::set_products: those of a layer
// follow each other, the output is the last.
enum class LayerMatrix : size_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr size_t kLayerMatrices = 7;
constexpr size_t product_number(size_t layer, LayerMatrix matrix) {
  return layer * kLayerMatrices + size_t(matrix);
}
constexpr size_t output_number(size_t n_layers) { return n_layers * kLayerMatrices; }

struct Adapter {
  // In place of the base model's, with data where the adapter brings its own.
  Matrix token_embedding;  // (vocab_size, dim), a table
  Matrix own_output;       // (vocab_size, dim)

  int64_t rank = 0;         // the highest of its matrices
  uint64_t parameters = 0;  // values in its file
  uint64_t bytes() const {
    uint64_t sum = 0;
    for (const auto& storage : storages) sum += storage->bytes();
    return sum;
  }

  std::vector<std::unique_ptr<AdapterStorage>> storages;  // of each stage of the model
};

}  // namespace maestrale
