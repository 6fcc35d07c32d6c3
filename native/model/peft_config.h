// SPDX-License-Identifier: Apache-2.0
// The adapter_config.json of PEFT (LoraConfig): what scales each matrix, and which matrices there should be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json_fields.h"

namespace maestrale {

class PeftConfig {
 public:
  // Throws Error{kModelFormat} naming the field that is damaged, Error{kModelUnsupported} the one that asks
  // for what is not supported.
  explicit PeftConfig(const Json& json);

  // Modules are named as in the model, e.g. "model.layers.0.self_attn.q_proj".
  int64_t rank(const std::string& module) const;  // lora_a has as many rows
  // What lora_b * lora_a is multiplied with: alpha / rank, or alpha / sqrt(rank) with rsLoRA (Kalajdzievski
  // 2023).
  float scaling(const std::string& module) const;
  bool dora() const { return dora_; }
  // Whether the module was trained as a whole (modules_to_save): the embedding or the head.
  bool saves(const std::string& module) const;
  // Whether the module has an adapter; nothing when the config says so by a regular expression.
  std::optional<bool> targets(const std::string& module, int32_t layer) const;

 private:
  using Pattern = std::vector<std::pair<std::string, double>>;
  static Pattern read_pattern(const JsonFields& config, const char* field);
  static double find(const Pattern& pattern, const std::string& module, double otherwise);

  int64_t rank_ = 8;
  double alpha_ = 8.0;
  Pattern rank_pattern_, alpha_pattern_;
  bool rslora_ = false, dora_ = false;
  std::optional<std::vector<std::string>> target_modules_;
  std::vector<std::string> exclude_modules_, modules_to_save_;
  std::vector<int64_t> layers_;  // layers_to_transform; empty: all
};

}  // namespace maestrale
