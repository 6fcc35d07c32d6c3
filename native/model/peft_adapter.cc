// SPDX-License-Identifier: Apache-2.0
#include "model/peft_adapter.h"

#include <filesystem>
#include <map>
#include <utility>

#include "base/error.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "model/hf_source.h"
#include "model/peft_config.h"

namespace maestrale {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kPrefix = "base_model.model.";

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorCode::kAdapter, problem); }

bool is_there(const fs::path& path) {
  std::error_code ignored;  // what cannot be examined is not there
  return fs::exists(path, ignored);
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t side : shape) text += (text.empty() ? "" : " x ") + std::to_string(side);
  return text.empty() ? "of a scalar" : text;
}

PeftConfig read_config(const std::string& directory) {
  const std::optional<Json> json = read_json(directory, kConfig);
  if (!json) fail("the directory holds no " + std::string(kConfig) + ", so it is no PEFT adapter");
  return PeftConfig(*json);
}

std::shared_ptr<const MappedFile> open_weights(const fs::path& directory) {
  if (is_there(directory / kWeights))
    return std::make_shared<const MappedFile>((directory / kWeights).string());
  if (is_there(directory / "adapter_model.bin"))
    fail(
        "its weights are in adapter_model.bin, a pickle file, which can run code when it is read and is "
        "never "
        "opened; save the adapter as safetensors");
  fail("the directory holds no " + std::string(kWeights));
}

// What belongs to one module.
struct Parts {
  const SafetensorsTensor* lora_a = nullptr;
  const SafetensorsTensor* lora_b = nullptr;
  const SafetensorsTensor* magnitude = nullptr;
  const SafetensorsTensor* whole = nullptr;
};

std::string without(std::string text, const std::string& part) {
  if (const size_t at = text.find(part); at != std::string::npos) text.erase(at, part.size());
  return text;
}

// Puts a tensor to the module it belongs to, by its name.
void assign(const SafetensorsTensor& tensor, std::map<std::string, Parts>& modules) {
  const std::string shown = "tensor '" + tensor.name.substr(0, 128) + "'";
  if (!tensor.name.starts_with(kPrefix))
    fail(shown + " is not named as PEFT names tensors: " + kPrefix + "...");
  const std::string name =
      without(without(tensor.name.substr(std::string(kPrefix).size()), ".default"), ".modules_to_save");
  if (name.find("lora_embedding_") != std::string::npos)
    fail(shown + " is LoRA on the embedding, which is not supported; modules_to_save is");
  const std::pair<const char*, const SafetensorsTensor * Parts::*> kinds[] = {
      {".lora_A.weight", &Parts::lora_a},
      {".lora_B.weight", &Parts::lora_b},
      {".lora_magnitude_vector.weight", &Parts::magnitude},
      {".lora_magnitude_vector", &Parts::magnitude},
      {".base_layer.weight", nullptr},
      {".weight", &Parts::whole}};
  for (const auto& [suffix, part] : kinds) {
    if (!name.ends_with(suffix)) continue;
    if (part == nullptr) fail(shown + " is a copy of a base matrix, which an adapter does not bring");
    Parts& parts = modules[name.substr(0, name.size() - std::string(suffix).size())];
    if (parts.*part != nullptr) fail(shown + " is there twice, also as '" + (parts.*part)->name + "'");
    parts.*part = &tensor;
    return;
  }
  fail(shown + " is none that is supported");
}

class Reader {
 public:
  Reader(const std::string& directory, const ModelConfig& config)
      : config_(read_config(directory)), head_dim_(config.head_dim) {
    result_.path = directory;
    result_.file = open_weights(directory);
    header_ = SafetensorsFile::parse(result_.file->bytes(), result_.file->size());
  }

  AdapterFile read(const ModelConfig& config) {
    std::map<std::string, Parts> modules;
    for (const SafetensorsTensor& tensor : header_.tensors()) assign(tensor, modules);
    for (const ModelTensor& target : model_tensors(config)) {
      const std::string weight = hf_tensor_name(target), module = weight.substr(0, weight.size() - 7);
      const auto found = modules.find(module);
      if (found != modules.end()) {
        add(target, module, found->second);
        modules.erase(found);
      } else if (!target.is_norm() &&
                 (config_.saves(module) || config_.targets(module, target.layer).value_or(false))) {
        fail("adapter_config.json names '" + module + "', but " + kWeights + " has nothing for it");
      }
    }
    if (!modules.empty())
      fail("the adapter changes '" + modules.begin()->first.substr(0, 128) +
           "', which the base model does not have");
    if (result_.deltas.empty() && result_.replacements.empty()) fail("the adapter is empty");
    return std::move(result_);
  }

 private:
  void add(const ModelTensor& target, const std::string& module, const Parts& parts) {
    if (parts.whole != nullptr) add_whole(target, module, *parts.whole);
    if (parts.lora_a == nullptr && parts.lora_b == nullptr && parts.magnitude == nullptr) return;
    if (target.is_norm() || target.role == TensorRole::kTokenEmbedding)
      fail("the adapter changes '" + module + "' by LoRA, which is not supported");
    if (parts.whole != nullptr) fail("the adapter both replaces and changes '" + module + "'");
    if (parts.lora_a == nullptr || parts.lora_b == nullptr)
      fail("'" + module + "' has no " + (parts.lora_a == nullptr ? "lora_A" : "lora_B"));
    if (config_.dora() != (parts.magnitude != nullptr))
      fail("'" + module + "' has " + (parts.magnitude != nullptr ? "a" : "no") +
           " lora_magnitude_vector, but adapter_config.json says use_dora: " +
           (config_.dora() ? "true" : "false"));
    if (!config_.targets(module, target.layer).value_or(true))
      fail("the adapter changes '" + module + "', which adapter_config.json does not name");
    const uint64_t rank = uint64_t(config_.rank(module));
    AdapterDelta delta;
    delta.target = target;
    delta.scaling = config_.scaling(module);
    delta.lora_a = source(*parts.lora_a, {rank, uint64_t(target.cols)});
    delta.lora_b = by_outputs(target, *parts.lora_b, {uint64_t(target.rows), rank});
    if (parts.magnitude != nullptr) {
      SafetensorsTensor column = *parts.magnitude;
      if (column.shape.size() == 1) column.shape.push_back(1);
      delta.magnitude = by_outputs(target, column, {uint64_t(target.rows), 1});
    }
    result_.deltas.push_back(std::move(delta));
  }

  void add_whole(const ModelTensor& target, const std::string& module, const SafetensorsTensor& tensor) {
    if (target.role != TensorRole::kTokenEmbedding && target.role != TensorRole::kOutput)
      fail("the adapter replaces '" + module +
           "'; of modules_to_save only embed_tokens and lm_head are supported");
    result_.replacements.push_back({target, source(tensor, {uint64_t(target.rows), uint64_t(target.cols)})});
  }

  std::unique_ptr<const MatrixSource> source(const SafetensorsTensor& tensor,
                                             const std::vector<uint64_t>& shape) const {
    if (tensor.shape != shape)
      fail("tensor '" + tensor.name + "' has shape " + shape_text(tensor.shape) +
           ", but adapter_config.json and the base model demand " + shape_text(shape));
    return std::make_unique<SafetensorsSource>(*result_.file, tensor);
  }

  // Rows are outputs of the target: in the order of its own.
  std::unique_ptr<const MatrixSource> by_outputs(const ModelTensor& target, const SafetensorsTensor& tensor,
                                                 const std::vector<uint64_t>& shape) const {
    std::unique_ptr<const MatrixSource> rows = source(tensor, shape);
    if (target.role != TensorRole::kQ && target.role != TensorRole::kK) return rows;
    return std::make_unique<ReorderedSource>(std::move(rows), head_dim_, checkpoint_row);
  }

  const PeftConfig config_;
  const int64_t head_dim_;
  AdapterFile result_;
  SafetensorsFile header_;
};

}  // namespace

AdapterFile read_peft_adapter(const std::string& directory, const ModelConfig& config) {
  return Reader(directory, config).read(config);
}

}  // namespace maestrale
