// SPDX-License-Identifier: Apache-2.0
#include "model/hf_config_writer.h"

#include <string>

namespace maestrale {
namespace {

std::string torch_name(QuantType type) {
  return type == QuantType::kF32 ? "float32" : type == QuantType::kF16 ? "float16" : "bfloat16";
}

}  // namespace

JsonObjectText hf_config(const ModelConfig& config, QuantType type, bool tied) {
  JsonObjectText json;
  json.add("architectures", R"(["MistralForCausalLM"])");
  json.add_string("model_type", "mistral");
  json.add_integer("hidden_size", config.dim);
  json.add_integer("intermediate_size", config.hidden_dim);
  json.add_integer("num_hidden_layers", config.n_layers);
  json.add_integer("num_attention_heads", config.n_heads);
  json.add_integer("num_key_value_heads", config.n_kv_heads);
  json.add_integer("head_dim", config.head_dim);
  json.add_integer("vocab_size", config.vocab_size);
  json.add_integer("max_position_embeddings", config.context_length);
  json.add_string("hidden_act", "silu");
  json.add("rms_norm_eps", json_number(config.norm_eps));
  json.add("rope_theta", json_number(config.rope_theta));
  // Without the field it would be 4096.
  json.add("sliding_window", config.sliding_window > 0 ? std::to_string(config.sliding_window) : "null");
  json.add_flag("tie_word_embeddings", tied);
  json.add_string("torch_dtype", torch_name(type));
  return json;
}

}  // namespace maestrale
