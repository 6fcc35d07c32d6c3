// SPDX-License-Identifier: Apache-2.0
#include "model/hf_files.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string_view>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kNativeIndex = "consolidated.safetensors.index.json";

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;  // a directory that cannot be read has no files
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

HfFiles find_hf_files(const std::string& directory) {
  const std::vector<std::string> names = names_in(directory);
  const auto has = [&](const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  HfFiles files;
  if (has(kSingle)) {
    files.weights = {kSingle};
  } else if (has(kIndex)) {
    files.index = kIndex;
  } else if (has(kNativeIndex)) {
    files.native = true;
    files.index = kNativeIndex;
  } else {
    for (const std::string& name : names)
      if (name.starts_with("consolidated") && name.ends_with(".safetensors")) files.weights.push_back(name);
    files.native = !files.weights.empty() || (!has("config.json") && has("params.json"));
  }
  files.config = files.native ? "params.json" : "config.json";
  return files;
}

std::vector<std::string> find_side_files(const std::string& directory) {
  constexpr std::string_view kNames[] = {
      "added_tokens.json",       "chat_template.jinja", "chat_template.json", "generation_config.json",
      "special_tokens_map.json", "tokenizer.json",      "tokenizer.model",    "tokenizer_config.json"};
  std::vector<std::string> found;
  for (const std::string& name : names_in(directory))
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
        name.find(".model.v") != std::string::npos)
      found.push_back(name);
  return found;
}

void fail_without_weights(const std::string& directory) {
  for (const std::string& name : names_in(directory))
    if (name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt"))
      throw Error(ErrorCode::kModelUnsupported,
                  "'" + directory + "' holds its weights in '" + name +
                      "', a pickle file, which can run code when it is read and is never opened; save the "
                      "model as safetensors");
  if (std::filesystem::exists(std::filesystem::path(directory) / "adapter_config.json"))
    throw Error(ErrorCode::kModelFormat,
                "'" + directory + "' is a LoRA adapter, which needs the model that it was trained on");
  throw Error(ErrorCode::kModelFormat, "'" + directory + "' holds neither " + kSingle + " nor " + kIndex +
                                           " nor consolidated.safetensors, so it has no weights");
}

}  // namespace maestrale
