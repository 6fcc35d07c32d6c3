// SPDX-License-Identifier: Apache-2.0
// From a model file to a Model on a backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/model.h"

namespace maestrale {

struct LoadCallbacks {
  std::function<void(uint64_t loaded, uint64_t total)>
      on_progress;                               // bytes of the file; from the loading thread
  const std::atomic<bool>* cancelled = nullptr;  // true: stop with Error{kAborted}
};

// Checks every tensor's presence, shape and type against `config`, then repacks the weights onto
// `backend`. Throws Error{kModelFormat} naming the tensor. The file is not needed afterwards.
std::unique_ptr<Model> load_gguf_model(const MappedFile& file, const GgufFile& header, ModelConfig config,
                                       std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks);

}  // namespace maestrale
