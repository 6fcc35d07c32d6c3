// SPDX-License-Identifier: Apache-2.0
// The numbers that define a Mistral model, named as in Mistral's params.json.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf.h"

namespace maestrale {

struct ModelConfig {
  int32_t dim = 0;         // width of the residual stream
  int32_t hidden_dim = 0;  // width inside the feed-forward network
  int32_t n_layers = 0;
  int32_t n_heads = 0;     // query heads
  int32_t n_kv_heads = 0;  // key/value heads; query head h reads head h / (n_heads / n_kv_heads)
  int32_t head_dim = 0;    // not always dim / n_heads
  int32_t vocab_size = 0;  // rows of the embedding and of the output matrix
  float norm_eps = 1e-5f;
  double rope_theta = 10000.0;
  int64_t sliding_window = 0;  // 0: full attention
  int64_t context_length = 0;  // what the model was trained for
  std::string name;
  std::string version;  // "v0.1", "v0.2", "v0.3", or "" when it is none of the published families
  std::string sliding_window_source;  // "metadata", "recognised v0.1", "option", "none"
};

// Reads and validates the metadata of architecture `llama` (which Mistral files declare).
// Throws Error{kModelFormat} naming the key, Error{kModelUnsupported} for other architectures.
ModelConfig config_from_gguf(const GgufFile& file);

}  // namespace maestrale
