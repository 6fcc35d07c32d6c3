// SPDX-License-Identifier: Apache-2.0
// From an adapter's file to the memory of a model's devices.
#pragma once

#include <functional>
#include <memory>

#include "backend/backend.h"
#include "model/adapter.h"
#include "model/adapter_file.h"
#include "model/loader.h"

namespace maestrale {

// Opens the weights of the base model once more; called for DoRA only, which has to know how long their rows
// are. Throws Error{kAdapter} when they cannot be read.
using OpenBase = std::function<std::shared_ptr<const WeightStore>()>;

// Packs an adapter, scaled by `scale`, for the stages of `model`. On any thread, while they compute. Values
// of 32 bits are kept in 16 where that loses nothing. Throws Error{kAdapter} when a value is no finite
// number.
std::unique_ptr<const Adapter> load_adapter(const AdapterFile& file, float scale, const Model& model,
                                            const OpenBase& open_base, const LoadCallbacks& callbacks);

// The lengths of the rows of w + scaling * lora_b * lora_a (DoRA, Liu 2024), for all rows of `base`. lora_a
// is (rank, base.cols), lora_b is (base.rows, rank).
std::vector<float> adapted_row_lengths(const MatrixSource& base, const std::vector<float>& lora_a,
                                       const std::vector<float>& lora_b, float scaling,
                                       const LoadCallbacks& callbacks);

}  // namespace maestrale
