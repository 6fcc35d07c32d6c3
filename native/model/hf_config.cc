// SPDX-License-Identifier: Apache-2.0
// Hyperparameters from config.json, with the defaults of transformers' MistralConfig where published files
// rely on them. Whatever would change the computation and is not implemented is refused by name.
#include "model/hf_config.h"

#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "io/text_file.h"
#include "model/config_fields.h"
#include "model/hf_files.h"
#include "model/mistral_config.h"

namespace maestrale {
namespace {

using namespace config_limits;

constexpr int64_t kDefaultWindow = 4096;
constexpr ShapeFields kFields{.dim = "hidden_size",
                              .hidden_dim = "intermediate_size",
                              .n_layers = "num_hidden_layers",
                              .n_heads = "num_attention_heads",
                              .n_kv_heads = "num_key_value_heads",
                              .head_dim = "head_dim",
                              .vocab_size = "vocab_size",
                              .norm_eps = "rms_norm_eps"};

// Whether it is a Mistral; a Llama otherwise.
bool read_architecture(const JsonFields& json) {
  const std::optional<std::string> type = json.text("model_type");
  if (!type) json.fail("model_type", "is missing");
  if (*type != "mistral" && *type != "llama")
    json.unsupported("model_type", "is '" + excerpt(*type) + "', but only 'mistral' and 'llama' run");
  if (const Json::Array* names = json.array("architectures")) {
    const std::string wanted = *type == "mistral" ? "MistralForCausalLM" : "LlamaForCausalLM";
    if (names->size() != 1 || (*names)[0].string() == nullptr)
      json.fail("architectures", "is not a list of one name");
    if (*(*names)[0].string() != wanted)
      json.unsupported("architectures",
                       "names '" + excerpt(*(*names)[0].string()) + "', but only '" + wanted + "' runs");
  }
  return *type == "mistral";
}

// The older files have rope_theta and rope_scaling, the newer ones both in rope_parameters.
double read_rope(const JsonFields& json) {
  double theta = json.real("rope_theta").value_or(10000.0);
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const std::optional<JsonFields> rope = json.object(field);
    if (!rope) continue;
    for (const char* key : {"rope_type", "type"})
      if (const auto kind = rope->text(key); kind && *kind != "default")
        json.unsupported(
            field, "asks for RoPE scaling of the type '" + excerpt(*kind) + "', but only unscaled RoPE runs");
    if (const double factor = rope->real("factor").value_or(1.0); factor != 1.0)
      json.unsupported(field, "scales RoPE by " + decimal(factor) + ", but only unscaled RoPE runs");
    theta = rope->real("rope_theta").value_or(theta);
  }
  return checked_rope_theta(json, theta);
}

void read_sliding_window(const JsonFields& json, bool mistral, ModelConfig& config) {
  config.sliding_window_source = "none";
  if (!mistral) return;
  config.sliding_window = json.integer("sliding_window", 1, kMaxPositions).value_or(0);
  if (config.sliding_window > 0) config.sliding_window_source = "metadata";
  if (json.is_absent("sliding_window")) {
    config.sliding_window = kDefaultWindow;
    config.sliding_window_source = "default";
  }
}

// One window for all layers is what runs.
void check_layer_types(const JsonFields& json, const ModelConfig& config) {
  const Json::Array* list = json.array("layer_types");
  if (list == nullptr) return;
  const std::string wanted = config.sliding_window > 0 ? "sliding_attention" : "full_attention";
  for (const Json& type : *list)
    if (type.string() == nullptr || *type.string() != wanted)
      json.unsupported("layer_types", "must be '" + wanted +
                                          "' for every layer: windows that differ between layers do not run");
}

void check_extensions(const JsonFields& json) {
  if (const auto act = json.text("hidden_act"); act && *act != "silu")
    json.unsupported("hidden_act", "is '" + excerpt(*act) + "', but only 'silu' runs");
  for (const char* field : {"attention_bias", "mlp_bias"})
    if (json.flag(field).value_or(false)) json.unsupported(field, "is true: Mistral has no biases");
  if (json.real("partial_rotary_factor").value_or(1.0) != 1.0)
    json.unsupported("partial_rotary_factor", "is not 1: only RoPE over whole heads runs");
  const std::optional<JsonFields> quantization = json.object("quantization_config");
  if (!quantization) return;
  const std::string method = quantization->text("quant_method").value_or("an unnamed method");
  if (method != "bitsandbytes" || !quantization->flag("load_in_4bit").value_or(false))
    json.unsupported("quantization_config",
                     "says that the weights are quantised by '" + excerpt(method) +
                         "', but of quantised checkpoints only those in 4 bits by 'bitsandbytes' are read");
}

}  // namespace

HfConfig config_from_hf(const Json& file) {
  const JsonFields json(file, "config.json");
  const bool mistral = read_architecture(json);
  check_extensions(json);
  HfConfig config;
  ModelConfig& model = config.model;
  model.context_length = json.size("max_position_embeddings", kMaxPositions);
  // Absent, unlike null, has MistralConfig's default.
  if (mistral && json.is_absent("num_key_value_heads")) model.n_kv_heads = 8;
  model.norm_eps = 1e-6f;
  read_shape(json, kFields, model);
  model.rope_theta = read_rope(json);
  read_sliding_window(json, mistral, model);
  check_layer_types(json, model);
  model.version = detect_version(model);
  config.tied = json.flag("tie_word_embeddings").value_or(false);
  return config;
}

HfConfig read_hf_config(const std::string& directory) {
  const HfFiles files = find_hf_files(directory);
  const std::optional<Json> json = read_json(directory, files.config);
  if (!json)
    throw Error(ErrorCode::kModelFormat,
                "'" + directory + "' has no " + files.config + ", so it is no model");
  HfConfig config = files.native ? config_from_mistral(*json) : config_from_hf(*json);
  // "models/mistral/" ends with an empty name.
  const std::filesystem::path base(directory);
  config.model.name = (base.has_filename() ? base : base.parent_path()).filename().string();
  return config;
}

}  // namespace maestrale
