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
  std::string sliding_window_source;  // "metadata", "default", "recognised v0.1", "option", "none"
};

// Generous bounds on what a Mistral-shaped model may declare; products of any two fit in 63 bits.
namespace config_limits {
constexpr uint64_t kMaxLayers = 512;
constexpr uint64_t kMaxHeads = 1024;
constexpr uint64_t kMaxDim = 1 << 16;
constexpr uint64_t kMaxHiddenDim = 1 << 20;
constexpr uint64_t kMaxVocab = 1 << 20;
constexpr uint64_t kMaxPositions = 0x7fffffff;
constexpr uint64_t kMaxHeadDim = 256;  // what the attention kernels hold in registers and tiles
constexpr uint64_t kHeadDimStep = 16;
}  // namespace config_limits

// The published release with these numbers, for ModelConfig::version.
std::string detect_version(const ModelConfig& config);

// Reads and validates the metadata of architecture `llama` (which Mistral files declare).
// Throws Error{kModelFormat} naming the key, Error{kModelUnsupported} for other architectures.
ModelConfig config_from_gguf(const GgufFile& file);

}  // namespace maestrale
