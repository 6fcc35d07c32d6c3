// SPDX-License-Identifier: Apache-2.0
#include "model/mistral_config.h"

#include <optional>

#include "model/config_fields.h"

namespace maestrale {
namespace {

using namespace config_limits;

constexpr ShapeFields kFields{.dim = "dim",
                              .hidden_dim = "hidden_dim",
                              .n_layers = "n_layers",
                              .n_heads = "n_heads",
                              .n_kv_heads = "n_kv_heads",
                              .head_dim = "head_dim",
                              .vocab_size = "vocab_size",
                              .norm_eps = "norm_eps"};
constexpr int64_t kTrainedLength = 32768;  // of the 7B releases, whose params.json does not say it

// 0: full attention.
int64_t window_of(const JsonFields& json, const Json& value) {
  if (value.is_null()) return 0;
  const std::optional<int64_t> window = value.integer();
  if (!window || *window < 1 || *window > int64_t(kMaxPositions))
    json.fail("sliding_window",
              "is neither null nor a number of keys from 1 to " + std::to_string(kMaxPositions));
  return *window;
}

int64_t read_sliding_window(const JsonFields& json) {
  const char* field = json.find("sliding_window") == nullptr ? "_sliding_window" : "sliding_window";
  const Json* value = json.find(field);
  if (value == nullptr) return 0;
  if (value->array() == nullptr) return window_of(json, *value);
  if (value->array()->empty()) json.fail(field, "is an empty list");
  const int64_t window = window_of(json, value->array()->front());
  for (const Json& other : *value->array())
    if (window_of(json, other) != window)
      json.unsupported(field,
                       "is a list of different windows, but windows that differ between layers do not run");
  return window;
}

}  // namespace

HfConfig config_from_mistral(const Json& file) {
  const JsonFields json(file, "params.json");
  for (const char* field : {"moe", "rope_scaling", "yarn", "quantization", "vision_encoder", "lora"})
    if (json.find(field) != nullptr) json.unsupported(field, "is present: Mistral 7B has no such thing");
  if (const auto type = json.text("model_type"); type && *type != "transformer")
    json.unsupported("model_type", "is '" + excerpt(*type) + "', but only 'transformer' runs");
  HfConfig config;
  config.native = true;
  config.tied = json.flag("tied_embeddings").value_or(false);
  ModelConfig& model = config.model;
  if (json.find(kFields.norm_eps) == nullptr) json.fail(kFields.norm_eps, "is missing");
  read_shape(json, kFields, model);
  model.context_length = kTrainedLength;
  for (const char* field : {"max_seq_len", "max_position_embeddings"})
    model.context_length = json.integer(field, 1, kMaxPositions).value_or(model.context_length);
  model.sliding_window = read_sliding_window(json);
  model.sliding_window_source = model.sliding_window > 0 ? "metadata" : "none";
  model.rope_theta = checked_rope_theta(
      json, json.real("rope_theta").value_or(model.sliding_window > 0 ? 10000.0 : 1000000.0));
  model.version = detect_version(model);
  return config;
}

}  // namespace maestrale
