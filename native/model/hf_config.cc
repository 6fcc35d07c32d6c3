// SPDX-License-Identifier: Apache-2.0
// Hyperparameters from config.json, with the defaults of transformers' MistralConfig where published files
// rely on them. Whatever would change the computation and is not implemented is refused by name.
#include "model/hf_config.h"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>

#include "base/error.h"
#include "io/mapped_file.h"

namespace maestrale {
namespace {

using namespace config_limits;

constexpr int64_t kDefaultWindow = 4096;

[[noreturn]] void fail(std::string_view field, const std::string& problem,
                       ErrorCode code = ErrorCode::kModelFormat) {
  throw Error(code, "'" + std::string(field) + "' of config.json " + problem);
}

[[noreturn]] void unsupported(std::string_view field, const std::string& problem) {
  fail(field, problem, ErrorCode::kModelUnsupported);
}

// The member, when it is there and not null.
const Json* present(const Json& json, std::string_view field) {
  const Json* value = json.find(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

// An integer within [low, high]; nothing when it is absent or null.
std::optional<int64_t> integer(const Json& json, std::string_view field, uint64_t low, uint64_t high) {
  const Json* value = present(json, field);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = value->integer();
  if (!number) fail(field, "is not an integer");
  if (*number < int64_t(low) || *number > int64_t(high))
    fail(field, "is " + std::to_string(*number) + ", but must be " + std::to_string(low) + " to " +
                    std::to_string(high));
  return number;
}

int32_t size(const Json& json, std::string_view field, uint64_t high) {
  const std::optional<int64_t> value = integer(json, field, 1, high);
  if (!value) fail(field, "is missing");
  return int32_t(*value);
}

double real(const Json& json, std::string_view field, double fallback) {
  const Json* value = present(json, field);
  if (value == nullptr) return fallback;
  if (!value->number()) fail(field, "is not a number");
  return *value->number();
}

bool flag(const Json& json, std::string_view field) {
  const Json* value = present(json, field);
  if (value == nullptr) return false;
  if (!value->boolean()) fail(field, "is neither true nor false");
  return *value->boolean();
}

std::optional<std::string> text(const Json& json, std::string_view field) {
  const Json* value = present(json, field);
  if (value == nullptr) return std::nullopt;
  if (value->string() == nullptr) fail(field, "is not a text");
  return value->string()->substr(0, 64);
}

std::string decimal(double value) {
  char out[32];
  std::snprintf(out, sizeof out, "%.9g", value);
  return out;
}

// Whether it is a Mistral; a Llama otherwise.
bool read_architecture(const Json& json) {
  const std::optional<std::string> type = text(json, "model_type");
  if (!type) fail("model_type", "is missing");
  if (*type != "mistral" && *type != "llama")
    unsupported("model_type", "is '" + *type + "', but only 'mistral' and 'llama' run");
  if (const Json* list = present(json, "architectures")) {
    const std::string wanted = *type == "mistral" ? "MistralForCausalLM" : "LlamaForCausalLM";
    const Json::Array* names = list->array();
    if (names == nullptr || names->size() != 1 || (*names)[0].string() == nullptr)
      fail("architectures", "is not a list of one name");
    if (*(*names)[0].string() != wanted)
      unsupported("architectures",
                  "names '" + (*names)[0].string()->substr(0, 64) + "', but only '" + wanted + "' runs");
  }
  return *type == "mistral";
}

// The older files have rope_theta and rope_scaling, the newer ones both in rope_parameters.
double read_rope(const Json& json) {
  double theta = real(json, "rope_theta", 10000.0);
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const Json* rope = present(json, field);
    if (rope == nullptr) continue;
    if (rope->object() == nullptr) fail(field, "is not an object");
    for (const char* key : {"rope_type", "type"})
      if (const auto kind = text(*rope, key); kind && *kind != "default")
        unsupported(field, "asks for RoPE scaling of the type '" + *kind + "', but only unscaled RoPE runs");
    if (const double factor = real(*rope, "factor", 1.0); factor != 1.0)
      unsupported(field, "scales RoPE by " + decimal(factor) + ", but only unscaled RoPE runs");
    theta = real(*rope, "rope_theta", theta);
  }
  if (!(std::isfinite(theta) && theta > 0.0))
    fail("rope_theta", "is " + decimal(theta) + ", but must be finite and above 0");
  return theta;
}

void read_heads(const Json& json, bool mistral, ModelConfig& config) {
  config.n_heads = size(json, "num_attention_heads", kMaxHeads);
  // Absent, unlike null, has MistralConfig's default.
  const bool absent = json.find("num_key_value_heads") == nullptr;
  const int64_t otherwise = absent && mistral ? 8 : config.n_heads;
  config.n_kv_heads = int32_t(integer(json, "num_key_value_heads", 1, kMaxHeads).value_or(otherwise));
  if (config.n_heads % config.n_kv_heads != 0)
    fail("num_key_value_heads", "is " + std::to_string(config.n_kv_heads) + ", which does not divide the " +
                                    std::to_string(config.n_heads) + " query heads");
  const std::optional<int64_t> head_dim = integer(json, "head_dim", 1, kMaxDim);
  if (!head_dim && config.dim % config.n_heads != 0)
    fail("hidden_size", "is " + std::to_string(config.dim) + ", which " + std::to_string(config.n_heads) +
                            " heads do not divide, and 'head_dim' is missing");
  config.head_dim = int32_t(head_dim.value_or(config.dim / config.n_heads));
  if (config.head_dim % int(kHeadDimStep) != 0 || config.head_dim == 0 || config.head_dim > int(kMaxHeadDim))
    unsupported(head_dim ? "head_dim" : "hidden_size",
                "makes heads of " + std::to_string(config.head_dim) + " values, but only multiples of " +
                    std::to_string(kHeadDimStep) + " up to " + std::to_string(kMaxHeadDim) + " run");
}

void read_sliding_window(const Json& json, bool mistral, ModelConfig& config) {
  config.sliding_window_source = "none";
  if (!mistral) return;
  config.sliding_window = integer(json, "sliding_window", 1, kMaxPositions).value_or(0);
  if (config.sliding_window > 0) config.sliding_window_source = "metadata";
  if (json.find("sliding_window") == nullptr) {
    config.sliding_window = kDefaultWindow;
    config.sliding_window_source = "default";
  }
}

// One window for all layers is what runs.
void check_layer_types(const Json& json, const ModelConfig& config) {
  const Json* list = present(json, "layer_types");
  if (list == nullptr) return;
  if (list->array() == nullptr) fail("layer_types", "is not a list");
  const std::string wanted = config.sliding_window > 0 ? "sliding_attention" : "full_attention";
  for (const Json& type : *list->array())
    if (type.string() == nullptr || *type.string() != wanted)
      unsupported("layer_types",
                  "must be '" + wanted + "' for every layer: windows that differ between layers do not run");
}

void check_extensions(const Json& json) {
  if (const auto act = text(json, "hidden_act"); act && *act != "silu")
    unsupported("hidden_act", "is '" + *act + "', but only 'silu' runs");
  for (const char* field : {"attention_bias", "mlp_bias"})
    if (flag(json, field)) unsupported(field, "is true: Mistral has no biases");
  if (real(json, "partial_rotary_factor", 1.0) != 1.0)
    unsupported("partial_rotary_factor", "is not 1: only RoPE over whole heads runs");
  const Json* quantization = present(json, "quantization_config");
  if (quantization == nullptr) return;
  const std::string method = text(*quantization, "quant_method").value_or("an unnamed method");
  if (method != "bitsandbytes" || !flag(*quantization, "load_in_4bit"))
    unsupported("quantization_config",
                "says that the weights are quantised by '" + method +
                    "', but of quantised checkpoints only those in 4 bits by 'bitsandbytes' are read");
}

}  // namespace

HfConfig config_from_hf(const Json& json) {
  if (json.object() == nullptr) throw Error(ErrorCode::kModelFormat, "config.json holds no JSON object");
  const bool mistral = read_architecture(json);
  check_extensions(json);
  HfConfig config;
  ModelConfig& model = config.model;
  model.dim = size(json, "hidden_size", kMaxDim);
  model.hidden_dim = size(json, "intermediate_size", kMaxHiddenDim);
  model.n_layers = size(json, "num_hidden_layers", kMaxLayers);
  model.vocab_size = size(json, "vocab_size", kMaxVocab);
  model.context_length = size(json, "max_position_embeddings", kMaxPositions);
  read_heads(json, mistral, model);
  model.norm_eps = float(real(json, "rms_norm_eps", 1e-6));
  if (!(model.norm_eps > 0.0f && model.norm_eps < 1.0f))
    fail("rms_norm_eps", "is " + decimal(double(model.norm_eps)) + ", but must lie between 0 and 1");
  model.rope_theta = read_rope(json);
  read_sliding_window(json, mistral, model);
  check_layer_types(json, model);
  model.version = detect_version(model);
  config.tied = flag(json, "tie_word_embeddings");
  return config;
}

HfConfig read_hf_config(const std::string& directory) {
  const std::filesystem::path base(directory);
  std::error_code ignored;  // what cannot be examined is not there
  if (!std::filesystem::exists(base / "config.json", ignored))
    throw Error(ErrorCode::kModelFormat,
                "'" + directory + "' has no config.json, so it is no Hugging Face model");
  const MappedFile file((base / "config.json").string());
  const std::span<const std::byte> text = file.bytes();
  HfConfig config = config_from_hf(Json::parse({reinterpret_cast<const char*>(text.data()), text.size()}));
  // "models/mistral/" ends with an empty name.
  config.model.name = (base.has_filename() ? base : base.parent_path()).filename().string();
  return config;
}

}  // namespace maestrale
