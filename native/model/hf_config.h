// SPDX-License-Identifier: Apache-2.0
// The hyperparameters of a checkpoint directory, and how its tensors are laid out.
#pragma once

#include <string>

#include "base/json.h"
#include "model/config.h"

namespace maestrale {

struct HfConfig {
  ModelConfig model;
  bool tied = false;    // the logits are computed with the embedding
  bool native = false;  // Mistral's own tensor names, Q and K in the row order of interleaved RoPE
};

// Reads and validates a config.json of MistralForCausalLM, or of LlamaForCausalLM, which is the same network
// without a window. A Mistral config without `sliding_window` means a window of 4096, as in transformers;
// null means none. Throws Error{kModelFormat} naming the field, Error{kModelUnsupported} for what Mistral has
// not.
HfConfig config_from_hf(const Json& json);

// The config.json of a directory, or its params.json when the weights are in Mistral's own layout (see
// HfFiles); the model is named after the directory.
HfConfig read_hf_config(const std::string& directory);

}  // namespace maestrale
