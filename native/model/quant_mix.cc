// SPDX-License-Identifier: Apache-2.0
#include "model/quant_mix.h"

#include "base/error.h"

namespace maestrale {
namespace {

constexpr QuantMix kMixes[] = {
    {"f32", QuantType::kF32, 0},      {"f16", QuantType::kF16, 1},      {"bf16", QuantType::kBF16, 32},
    {"q4_0", QuantType::kQ4_0, 2},    {"q4_1", QuantType::kQ4_1, 3},    {"q5_0", QuantType::kQ5_0, 8},
    {"q5_1", QuantType::kQ5_1, 9},    {"q8_0", QuantType::kQ8_0, 7},    {"q2_k", QuantType::kQ2_K, 10},
    {"q3_k", QuantType::kQ3_K, 11},   {"q3_k_m", QuantType::kQ3_K, 12}, {"q4_k", QuantType::kQ4_K, 14},
    {"q4_k_s", QuantType::kQ4_K, 14}, {"q4_k_m", QuantType::kQ4_K, 15}, {"q5_k", QuantType::kQ5_K, 16},
    {"q5_k_m", QuantType::kQ5_K, 17}, {"q6_k", QuantType::kQ6_K, 18},   {"nf4", QuantType::kNF4, 0},
    {"fp4", QuantType::kFP4, 0},
};

// The first and last eighth of the layers, and every third between.
bool is_sensitive(int32_t layer, int32_t n) {
  return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

QuantType value_type(const QuantMix& mix, int32_t layer, const ModelConfig& config) {
  if (mix.name == "q2_k") {
    // Heads that four query heads share are small and matter more.
    const bool shared = config.n_heads / config.n_kv_heads >= 4;
    return shared ? QuantType::kQ4_K : QuantType::kQ3_K;
  }
  if (mix.name == "q3_k_m") return layer < 2 ? QuantType::kQ5_K : QuantType::kQ4_K;
  if (mix.name == "q4_k_s" && layer < 4) return QuantType::kQ5_K;
  const bool medium = mix.name == "q4_k_m" || mix.name == "q5_k_m";
  return medium && is_sensitive(layer, config.n_layers) ? QuantType::kQ6_K : mix.base;
}

QuantType down_type(const QuantMix& mix, int32_t layer, const ModelConfig& config) {
  const int32_t n = config.n_layers;
  if (mix.name == "q2_k") return QuantType::kQ3_K;
  if (mix.name == "q3_k_m") return layer < n / 16 ? QuantType::kQ5_K : QuantType::kQ4_K;
  if (mix.name == "q4_k_s" && layer < n / 8) return QuantType::kQ5_K;
  const bool medium = mix.name == "q4_k_m" || mix.name == "q5_k_m";
  return medium && is_sensitive(layer, n) ? QuantType::kQ6_K : mix.base;
}

// Quantised logits cost most: the matrix that makes them has at least Q6_K.
QuantType output_type(QuantType base) {
  switch (base) {
    case QuantType::kF32:
    case QuantType::kF16:
    case QuantType::kBF16:
    case QuantType::kQ8_0: return base;
    default: return QuantType::kQ6_K;
  }
}

QuantType wanted_type(const QuantMix& mix, const ModelTensor& tensor, const ModelConfig& config, bool tied) {
  switch (tensor.role) {
    case TensorRole::kTokenEmbedding: return tied ? output_type(mix.base) : mix.base;
    case TensorRole::kOutput: return output_type(mix.base);
    case TensorRole::kV: return value_type(mix, tensor.layer, config);
    case TensorRole::kDown: return down_type(mix, tensor.layer, config);
    case TensorRole::kAttentionOutput:
      if (mix.name == "q2_k") return QuantType::kQ3_K;
      return mix.name == "q3_k_m" ? QuantType::kQ4_K : mix.base;
    default: return mix.base;
  }
}

// For columns that are no whole super-blocks.
QuantType smaller_blocks(QuantType type) {
  switch (type) {
    case QuantType::kQ2_K:
    case QuantType::kQ3_K: return QuantType::kQ4_0;
    case QuantType::kQ4_K: return QuantType::kQ5_0;
    case QuantType::kQ5_K: return QuantType::kQ5_1;
    case QuantType::kQ6_K: return QuantType::kQ8_0;
    default: return QuantType::kF16;
  }
}

}  // namespace

const QuantMix& quant_mix(std::string_view name) {
  std::string names;
  for (const QuantMix& mix : kMixes) {
    if (mix.name == name) return mix;
    names += (names.empty() ? "" : ", ") + std::string(mix.name);
  }
  throw Error(ErrorCode::kInvalidArg,
              "'" + std::string(name) + "' is no type to quantise to; there are " + names);
}

QuantType mixed_type(const QuantMix& mix, const ModelTensor& tensor, const ModelConfig& config, bool tied) {
  if (tensor.is_norm()) return QuantType::kF32;
  QuantType type = wanted_type(mix, tensor, config, tied);
  while (tensor.cols % quant_traits(type).items_per_block != 0) type = smaller_blocks(type);
  return type;
}

}  // namespace maestrale
