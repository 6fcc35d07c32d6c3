// SPDX-License-Identifier: Apache-2.0
// Which files of a checkpoint directory hold the model. There are two layouts: Hugging Face's, config.json
// with model.safetensors or shards of it, and Mistral's own, params.json with consolidated*.safetensors.
// Published directories may have both; Hugging Face's is then taken.
#pragma once

#include <string>
#include <vector>

namespace maestrale {

struct HfFiles {
  bool native = false;  // Mistral's own layout
  std::string config;   // "config.json" or "params.json"
  // Names of the weight files, or of one index that names them; all are empty when there are none.
  std::string index;
  std::vector<std::string> weights;
};

// Looks at names only; opens nothing.
HfFiles find_hf_files(const std::string& directory);

// Names of the files in Hugging Face's layout that say how a model is used: tokenizer, chat template and
// defaults of generation, all that are there.
std::vector<std::string> find_side_files(const std::string& directory);

// Says why a directory without safetensors files cannot be loaded. Throws Error{kModelUnsupported} for one
// whose weights are pickled, which are never read: reading them may run code. Error{kModelFormat} otherwise.
[[noreturn]] void fail_without_weights(const std::string& directory);

}  // namespace maestrale
