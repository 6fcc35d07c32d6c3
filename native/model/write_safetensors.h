// SPDX-License-Identifier: Apache-2.0
// Writes the weights of a model as a Hugging Face checkpoint has them: model.safetensors, or shards of it
// with an index.
#pragma once

#include <cstdint>

#include "io/atomic_directory.h"
#include "model/config.h"
#include "model/copy_rows.h"

namespace maestrale {

// What transformers has long cut checkpoints into.
constexpr uint64_t kShardBytes = 5'000'000'000;

// `weights` are F32, F16 or BF16. No file gets more than `shard_bytes` of data unless a single tensor has
// more. As copy_rows(), whose result it returns with the size of the files. Throws Error{kInvalidArg} when a
// file cannot be written, and as copy_rows() does.
WrittenModel write_safetensors(const AtomicDirectory& directory, const ModelConfig& config,
                               const WeightStore& weights, const WeightStore& original, int32_t threads,
                               const LoadCallbacks& callbacks, uint64_t shard_bytes = kShardBytes);

}  // namespace maestrale
