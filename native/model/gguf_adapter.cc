// SPDX-License-Identifier: Apache-2.0
#include "model/gguf_adapter.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "io/gguf.h"
#include "model/gguf_weights.h"

namespace maestrale {
namespace {

[[noreturn]] void fail(const std::string& problem) { throw Error(ErrorCode::kAdapter, problem); }

void require(const GgufFile& header, std::string_view key, std::string_view value) {
  const std::optional<std::string_view> found = header.get_string(key);
  if (found != value)
    fail("'" + std::string(key) + "' is " +
         (found ? "'" + std::string(found->substr(0, 64)) + "'" : std::string("missing")) +
         ", but an adapter for this model has '" + std::string(value) + "'");
}

void check_shape(const GgufTensor& tensor, int64_t rows, int64_t cols, const char* why) {
  if (tensor.rows != rows || tensor.cols != cols)
    fail("tensor '" + std::string(tensor.name) + "' has " + std::to_string(tensor.rows) + " rows of " +
         std::to_string(tensor.cols) + ", but " + why + " demands " + std::to_string(rows) + " of " +
         std::to_string(cols));
}

struct Halves {
  const GgufTensor* a = nullptr;
  const GgufTensor* b = nullptr;
};

}  // namespace

AdapterFile read_gguf_adapter(std::shared_ptr<const MappedFile> file, const ModelConfig& config) {
  const GgufFile header = GgufFile::parse(file->bytes(), file->size());
  require(header, "general.type", "adapter");
  require(header, "general.architecture", "llama");
  require(header, "adapter.type", "lora");
  if (header.find("adapter.alora.invocation_tokens") != nullptr)
    fail("the adapter begins at invocation tokens (aLoRA), which is not supported");
  const double alpha = header.get_float("adapter.lora.alpha").value_or(0.0);

  std::map<std::string, Halves> modules;
  for (const GgufTensor& tensor : header.tensors()) {
    const std::string name(tensor.name);
    const bool is_a = name.ends_with(".lora_a");
    if (!is_a && !name.ends_with(".lora_b"))
      fail("tensor '" + name.substr(0, 128) + "' is neither a lora_a nor a lora_b");
    Halves& halves = modules[name.substr(0, name.size() - 7)];
    (is_a ? halves.a : halves.b) = &tensor;
  }

  AdapterFile result;
  result.path = file->path();
  for (const ModelTensor& target : model_tensors(config)) {
    const auto found = modules.find(target.name);
    if (found == modules.end()) continue;
    const Halves halves = found->second;
    modules.erase(found);
    if (halves.a == nullptr || halves.b == nullptr)
      fail("'" + target.name + "' has no " + (halves.a == nullptr ? "lora_a" : "lora_b"));
    if (target.is_norm() || target.role == TensorRole::kTokenEmbedding)
      fail("the adapter changes '" + target.name + "', which is not supported");
    const int64_t rank = halves.b->cols;
    check_shape(*halves.a, rank, target.cols, "the base model");
    check_shape(*halves.b, target.rows, rank, "the base model");
    AdapterDelta delta;
    delta.target = target;
    delta.scaling = alpha != 0.0 ? float(alpha / double(rank)) : 1.0f;
    delta.lora_a = gguf_matrix(*file, *halves.a);
    delta.lora_b = gguf_matrix(*file, *halves.b);
    result.deltas.push_back(std::move(delta));
  }
  if (!modules.empty())
    fail("the adapter changes '" + modules.begin()->first.substr(0, 128) +
         "', which the base model does not have");
  if (result.deltas.empty()) fail("the adapter is empty");
  result.file = std::move(file);
  return result;
}

}  // namespace maestrale
