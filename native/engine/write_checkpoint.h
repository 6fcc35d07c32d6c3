// SPDX-License-Identifier: Apache-2.0
// Writes a model as a Hugging Face directory: config.json, weights, tokenizer, generation_config.json.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model_source.h"
#include "model/write_safetensors.h"

namespace maestrale {

// `source` says what the model is; files beside the weights of a Hugging Face directory are copied, those of
// other models are made of the vocabulary. `weights`, `original`, `shard_bytes` as for write_safetensors().
// `path` appears when all is complete and on disk. Throws Error{kInvalidArg} when it cannot be written or is
// there already, and as write_safetensors() does; nothing is left behind then.
WrittenModel write_checkpoint(const std::string& path, const ModelSource& source, const WeightStore& weights,
                              const WeightStore& original, int32_t threads, const LoadCallbacks& callbacks,
                              uint64_t shard_bytes = kShardBytes);

}  // namespace maestrale
