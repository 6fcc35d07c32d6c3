// SPDX-License-Identifier: Apache-2.0
// Hyperparameters from GGUF metadata. Each is checked here, alone and against the others, so that the
// code behind may compute sizes from them without a thought of zero, overflow or division.
#include "model/config.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"

namespace maestrale {
namespace {

using namespace config_limits;

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

[[noreturn]] void fail_format(const GgufFile& file, std::string_view key, const std::string& problem) {
  throw Error(ErrorCode::kModelFormat, file.describe(key) + " " + problem);
}

[[noreturn]] void fail_unsupported(const GgufFile& file, std::string_view key, const std::string& problem) {
  throw Error(ErrorCode::kModelUnsupported, file.describe(key) + " " + problem);
}

// An integer key within [low, high]; `fallback` when it is absent, an error when there is no fallback.
uint64_t integer(const GgufFile& file, std::string_view key, uint64_t low, uint64_t high,
                 std::optional<uint64_t> fallback = std::nullopt) {
  const std::optional<uint64_t> value = file.get_uint(key);
  if (!value && !fallback) fail_format(file, key, "is missing from the metadata");
  if (!value) return *fallback;
  if (*value < low || *value > high)
    fail_format(file, key,
                "is " + std::to_string(*value) + ", but must be " + std::to_string(low) + " to " +
                    std::to_string(high));
  return *value;
}

void check_architecture(const GgufFile& file) {
  const std::optional<std::string_view> type = file.get_string("general.type");
  if (type && *type != "model")
    fail_unsupported(file, "general.type",
                     "is '" + std::string(type->substr(0, 64)) + "': this file is no model");
  const std::optional<std::string_view> architecture = file.get_string("general.architecture");
  if (!architecture) fail_format(file, "general.architecture", "is missing from the metadata");
  // The name fixes the key prefix and the row order of the Q and K matrices, so a similar architecture
  // under another name is not the same file format.
  if (*architecture != "llama")
    fail_unsupported(file, "general.architecture",
                     "is '" + std::string(architecture->substr(0, 64)) +
                         "', but only 'llama' runs, which is what Mistral 7B files declare");
}

// Things the architecture `llama` can ask for and Mistral does not have. Running such a file without
// them would give wrong text, so each is refused.
void check_extensions(const GgufFile& file) {
  if (file.get_uint("llama.expert_count").value_or(0) > 0)
    fail_unsupported(file, "llama.expert_count", "is above 0: mixture-of-experts models do not run");
  if (!file.get_bool("llama.attention.causal").value_or(true))
    fail_unsupported(file, "llama.attention.causal", "is false: only causal attention runs");
  for (const char* key : {"llama.attention.sliding_window_pattern", "llama.attention.scale",
                          "llama.logit_scale", "llama.attention.temperature_scale"})
    if (file.find(key) != nullptr) fail_unsupported(file, key, "is present: Mistral 7B has no such thing");

  // Without a type the factor counts, as it did before the type existed; 0 is how some say "not scaled".
  const std::string_view scaling = file.get_string("llama.rope.scaling.type").value_or("linear");
  if (scaling == "none") return;
  if (scaling != "linear")
    fail_unsupported(file, "llama.rope.scaling.type",
                     "is '" + std::string(scaling.substr(0, 64)) + "', but only unscaled RoPE runs");
  for (const char* key : {"llama.rope.scaling.factor", "llama.rope.scale_linear"}) {
    const double factor = file.get_float(key).value_or(1.0);
    if (factor != 0.0 && factor != 1.0)
      fail_unsupported(file, key, "is " + number(factor) + ", but only unscaled RoPE (factor 1) runs");
  }
}

void read_heads(const GgufFile& file, ModelConfig& config) {
  config.n_heads = int32_t(integer(file, "llama.attention.head_count", 1, kMaxHeads));
  config.n_kv_heads = int32_t(
      integer(file, "llama.attention.head_count_kv", 1, uint64_t(config.n_heads), uint64_t(config.n_heads)));
  if (config.n_heads % config.n_kv_heads != 0)
    fail_format(file, "llama.attention.head_count_kv",
                "is " + std::to_string(config.n_kv_heads) + ", which does not divide the " +
                    std::to_string(config.n_heads) + " query heads");

  constexpr std::string_view kKeyLength = "llama.attention.key_length";
  constexpr std::string_view kValueLength = "llama.attention.value_length";
  const bool explicit_length = file.find(kKeyLength) != nullptr;
  if (!explicit_length && config.dim % config.n_heads != 0)
    fail_format(file, "llama.embedding_length",
                "is " + std::to_string(config.dim) + ", which " + std::to_string(config.n_heads) +
                    " heads do not divide, and '" + std::string(kKeyLength) + "' is missing");
  const uint64_t head_dim = integer(file, kKeyLength, 1, kMaxDim, uint64_t(config.dim / config.n_heads));
  const std::string source = explicit_length ? std::string(kKeyLength) : "llama.embedding_length";
  if (head_dim == 0 || head_dim % kHeadDimStep != 0 || head_dim > kMaxHeadDim)
    fail_unsupported(file, source,
                     "makes heads of " + std::to_string(head_dim) + " values, but only multiples of " +
                         std::to_string(kHeadDimStep) + " up to " + std::to_string(kMaxHeadDim) + " run");
  config.head_dim = int32_t(head_dim);
  if (const uint64_t value_length = integer(file, kValueLength, 1, kMaxDim, head_dim);
      value_length != head_dim)
    fail_format(
        file, kValueLength,
        "is " + std::to_string(value_length) + ", but the keys have " + std::to_string(head_dim) + " values");
  if (const uint64_t rotated = integer(file, "llama.rope.dimension_count", 0, kMaxDim, head_dim);
      rotated != head_dim)
    fail_format(file, "llama.rope.dimension_count",
                "is " + std::to_string(rotated) + ", but must be the head size, " + std::to_string(head_dim));
}

// The number of rows of the embedding. Fine-tunes pad it beyond the tokenizer; the converse cannot be.
int32_t read_vocab_size(const GgufFile& file) {
  const std::vector<std::string_view>* tokens = file.get_strings("tokenizer.ggml.tokens");
  const uint64_t n_tokens = tokens == nullptr ? 0 : tokens->size();
  if (tokens != nullptr && (n_tokens == 0 || n_tokens > kMaxVocab))
    fail_format(
        file, "tokenizer.ggml.tokens",
        "has " + std::to_string(n_tokens) + " tokens, but must have 1 to " + std::to_string(kMaxVocab));
  if (tokens == nullptr && file.find("llama.vocab_size") == nullptr)
    fail_format(file, "llama.vocab_size", "and 'tokenizer.ggml.tokens' are both missing from the metadata");
  const uint64_t vocab_size = integer(file, "llama.vocab_size", 1, kMaxVocab, n_tokens);
  if (n_tokens > vocab_size)
    fail_format(
        file, "llama.vocab_size",
        "is " + std::to_string(vocab_size) + ", fewer than the " + std::to_string(n_tokens) + " tokens");
  return int32_t(vocab_size);
}

// v0.1 files come from converters that drop the window, so its absence there means nothing.
void read_sliding_window(const GgufFile& file, ModelConfig& config) {
  constexpr std::string_view kKey = "llama.attention.sliding_window";
  if (file.find(kKey) != nullptr) {
    config.sliding_window = int64_t(integer(file, kKey, 0, kMaxPositions));
    config.sliding_window_source = "metadata";
  } else if (config.version == "v0.1") {
    config.sliding_window = 4096;
    config.sliding_window_source = "recognised v0.1";
  } else {
    config.sliding_window_source = "none";
  }
}

}  // namespace

// Published Mistral 7B files share one shape; what tells the releases apart is the RoPE base (raised in
// v0.2, when the window was dropped) and the vocabulary (extended in v0.3). Fine-tunes add a few tokens.
std::string detect_version(const ModelConfig& c) {
  if (c.n_layers != 32 || c.dim != 4096 || c.hidden_dim != 14336 || c.n_heads != 32 || c.n_kv_heads != 8 ||
      c.head_dim != 128 || c.context_length != 32768)
    return "";
  const bool first_vocabulary = c.vocab_size >= 32000 && c.vocab_size <= 32100;
  if (first_vocabulary && c.rope_theta == 10000.0) return "v0.1";
  if (first_vocabulary && c.rope_theta == 1e6) return "v0.2";
  if (c.vocab_size >= 32768 && c.vocab_size <= 32868 && c.rope_theta == 1e6) return "v0.3";
  return "";
}

ModelConfig config_from_gguf(const GgufFile& file) {
  check_architecture(file);
  check_extensions(file);
  ModelConfig config;
  config.n_layers = int32_t(integer(file, "llama.block_count", 1, kMaxLayers));
  config.dim = int32_t(integer(file, "llama.embedding_length", 1, kMaxDim));
  config.hidden_dim = int32_t(integer(file, "llama.feed_forward_length", 1, kMaxHiddenDim));
  config.context_length = int64_t(integer(file, "llama.context_length", 1, kMaxPositions));
  read_heads(file, config);
  config.vocab_size = read_vocab_size(file);

  constexpr std::string_view kEps = "llama.attention.layer_norm_rms_epsilon";
  const std::optional<double> eps = file.get_float(kEps);
  if (!eps) fail_format(file, kEps, "is missing from the metadata");
  config.norm_eps = float(*eps);
  if (!(config.norm_eps > 0.0f && config.norm_eps < 1.0f))  // also false for NaN
    fail_format(file, kEps, "is " + number(*eps) + ", but must lie between 0 and 1");

  constexpr std::string_view kTheta = "llama.rope.freq_base";
  config.rope_theta = file.get_float(kTheta).value_or(10000.0);
  if (!(std::isfinite(config.rope_theta) && config.rope_theta > 0.0))
    fail_format(file, kTheta, "is " + number(config.rope_theta) + ", but must be finite and above 0");

  config.name = std::string(file.get_string("general.name").value_or(""));
  config.version = detect_version(config);
  read_sliding_window(file, config);
  return config;
}

}  // namespace maestrale
