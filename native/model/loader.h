// SPDX-License-Identifier: Apache-2.0
// From stored weights to a Model on a backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/model.h"
#include "model/weight_store.h"

namespace maestrale {

struct LoadCallbacks {
  std::function<void(uint64_t loaded, uint64_t total)>
      on_progress;                               // bytes of the weights; from the loading thread
  const std::atomic<bool>* cancelled = nullptr;  // true: stop with Error{kAborted}
};

void check_cancelled(const LoadCallbacks& callbacks);

// Repacks the weights onto the devices of `stages`. Throws Error{kModelUnsupported} for norms that are no
// floats, Error{kModelFormat} naming a tensor whose values are damaged. The store is not needed afterwards.
std::unique_ptr<Model> load_model(const WeightStore& weights, ModelConfig config, std::vector<Stage> stages,
                                  const LoadCallbacks& callbacks);

// The whole model on one device.
std::unique_ptr<Model> load_model(const WeightStore& weights, ModelConfig config,
                                  std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks);

// The same for the weights of a GGUF file, see GgufWeights.
std::unique_ptr<Model> load_gguf_model(const MappedFile& file, const GgufFile& header, ModelConfig config,
                                       std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks);

// A norm weight as float32, whatever float type it is stored in. Throws as load_model() does.
std::vector<float> read_norm(const WeightStore& weights, const ModelTensor& norm);

}  // namespace maestrale
