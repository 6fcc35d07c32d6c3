// SPDX-License-Identifier: Apache-2.0
// Fields and defaults are those of PEFT's LoraConfig. Whatever would change the computation and is not done
// here is refused by name; fields that only matter in training are ignored.
#include "model/peft_config.h"

#include <algorithm>
#include <cmath>
#include <string_view>

namespace maestrale {
namespace {

// null, false, [] and {} are how PEFT says that a feature is not used.
bool is_used(const JsonFields& config, std::string_view field) {
  const Json* value = config.find(field);
  if (value == nullptr) return false;
  if (value->array() != nullptr) return !value->array()->empty();
  if (value->object() != nullptr) return !value->object()->empty();
  return value->boolean().value_or(true);
}

double positive(const JsonFields& config, std::string_view field, const Json& value) {
  const std::optional<double> number = value.number();
  if (!number || !std::isfinite(*number) || *number <= 0.0) config.fail(field, "is no number above 0");
  return *number;
}

// A string or a list of them.
std::vector<std::string> strings(const JsonFields& config, std::string_view field) {
  const Json* value = config.find(field);
  if (value == nullptr) return {};
  if (value->string() != nullptr) return {*value->string()};
  if (value->array() == nullptr) config.fail(field, "is neither a string nor a list");
  std::vector<std::string> list;
  for (const Json& item : *value->array()) {
    if (item.string() == nullptr) config.fail(field, "holds something that is no string");
    list.push_back(*item.string());
  }
  return list;
}

// As PEFT matches module names in lists: all of the name, or what follows one of its dots.
bool names_module(const std::string& entry, const std::string& module) {
  return module == entry || module.ends_with("." + entry);
}

void refuse_unsupported(const JsonFields& config) {
  const std::optional<std::string> type = config.text("peft_type");
  if (!type) config.fail("peft_type", "is missing");
  if (*type != "LORA")
    config.unsupported("peft_type", "is '" + excerpt(*type) + "', but only LORA is supported");
  // None of these is part of the published recipes; each computes something else than LoRA does.
  for (const char* field :
       {"use_qalora", "use_bdlora", "layer_replication", "target_parameters", "trainable_token_indices",
        "alora_invocation_tokens", "monteclora_config", "kasa_config", "velora_config", "arrow_config",
        "megatron_config", "ensure_weight_tying"})
    if (is_used(config, field)) config.unsupported(field, "asks for something that is not supported");
  if (config.flag("lora_bias").value_or(false) || config.text("bias").value_or("none") != "none")
    config.unsupported(config.flag("lora_bias").value_or(false) ? "lora_bias" : "bias",
                       "asks for biases, which are not supported: Mistral has none");
  // All others begin from a changed base model, which an adapter alone does not bring.
  const Json* init = config.find("init_lora_weights");
  if (init == nullptr || init->string() == nullptr) return;
  const std::string& how = *init->string();
  if (how != "gaussian" && how != "eva" && how != "orthogonal")
    config.unsupported("init_lora_weights", "is '" + excerpt(how) +
                                                "', so the adapter belongs to a changed base model; convert "
                                                "it to plain LoRA when saving it");
}

}  // namespace

PeftConfig::PeftConfig(const Json& json) {
  const JsonFields config(json, "adapter_config.json");
  refuse_unsupported(config);
  rank_ = config.integer("r", 1, 1 << 20).value_or(rank_);
  if (const Json* alpha = config.find("lora_alpha"); alpha != nullptr)
    alpha_ = positive(config, "lora_alpha", *alpha);
  rslora_ = config.flag("use_rslora").value_or(false);
  dora_ = config.flag("use_dora").value_or(false);
  // fan_in_fan_out says that the base stores its matrices transposed. Mistral's never are, so PEFT ignores it
  // as well.
  rank_pattern_ = read_pattern(config, "rank_pattern");
  alpha_pattern_ = read_pattern(config, "alpha_pattern");

  const Json* targets = config.find("target_modules");
  const Json* excluded = config.find("exclude_modules");
  const bool by_expression = (targets != nullptr && targets->string() != nullptr) ||
                             (excluded != nullptr && excluded->string() != nullptr);
  if (!by_expression) {
    target_modules_ =
        targets == nullptr ? std::vector<std::string>{"q_proj", "v_proj"} : strings(config, "target_modules");
    exclude_modules_ = strings(config, "exclude_modules");
  }
  if (const Json* layers = config.find("layers_to_transform"); layers != nullptr) {
    const Json::Array one{*layers};
    for (const Json& layer : layers->array() != nullptr ? *layers->array() : one) {
      if (layer.integer().value_or(-1) < 0)
        config.fail("layers_to_transform", "holds something that is no layer");
      layers_.push_back(*layer.integer());
    }
  }
  modules_to_save_ = strings(config, "modules_to_save");
  for (const std::string& module : modules_to_save_)
    if (!module.ends_with("embed_tokens") && !module.ends_with("lm_head"))
      config.unsupported("modules_to_save",
                         "names '" + excerpt(module) + "'; only embed_tokens and lm_head are supported");
  const std::vector<std::string> lists = strings(config, "layers_pattern");
  if (!lists.empty() && std::find(lists.begin(), lists.end(), "layers") == lists.end())
    config.unsupported("layers_pattern",
                       "is '" + excerpt(lists.front()) + "', but Mistral's layers are called 'layers'");
}

// Keys are regular expressions for the end of a module's name. Names are all that recipes use, so anything
// with an operator in it is refused rather than given to an engine that a stranger's expression can stall.
PeftConfig::Pattern PeftConfig::read_pattern(const JsonFields& config, const char* field) {
  const std::optional<JsonFields> object = config.object(field);
  if (!object) return {};
  Pattern pattern;
  for (const auto& [key, number] : object->members()) {
    std::string name;
    for (size_t i = 0; i < key.size(); ++i)
      if (key.compare(i, 2, "\\.") != 0 && !(key[i] == '$' && i + 1 == key.size())) name += key[i];
    if (name.empty() || name.find_first_of("*+?()[]{}|\\^$", name.front() == '^') != std::string::npos)
      config.unsupported(field, "has the key '" + excerpt(key) +
                                    "', a regular expression; only names of modules are supported");
    pattern.emplace_back(name, positive(config, field, number));
  }
  return pattern;
}

double PeftConfig::find(const Pattern& pattern, const std::string& module, double otherwise) {
  for (const auto& [name, value] : pattern)
    if (name.front() == '^' ? module == name.substr(1) : names_module(name, module)) return value;
  return otherwise;
}

int64_t PeftConfig::rank(const std::string& module) const {
  return int64_t(find(rank_pattern_, module, double(rank_)));
}

float PeftConfig::scaling(const std::string& module) const {
  const double alpha = find(alpha_pattern_, module, alpha_), r = double(rank(module));
  return float(alpha / (rslora_ ? std::sqrt(r) : r));
}

bool PeftConfig::saves(const std::string& module) const {
  return std::any_of(modules_to_save_.begin(), modules_to_save_.end(),
                     [&](const std::string& name) { return names_module(name, module); });
}

std::optional<bool> PeftConfig::targets(const std::string& module, int32_t layer) const {
  if (!target_modules_) return std::nullopt;
  const auto listed = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return names_module(name, module); });
  };
  if (listed(exclude_modules_)) return false;
  if (std::find(target_modules_->begin(), target_modules_->end(), module) != target_modules_->end())
    return true;  // a full name is meant, whatever the layers say
  const bool in_layers = layers_.empty() || std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
  return in_layers && listed(*target_modules_);
}

}  // namespace maestrale
