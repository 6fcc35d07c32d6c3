// SPDX-License-Identifier: Apache-2.0
#include "model/hf_weights.h"

#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "model/bnb_source.h"
#include "model/hf_files.h"
#include "model/hf_source.h"

namespace maestrale {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxShards = 1024;  // each is an open file

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t dim : shape) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text.empty() ? "of a scalar" : text;
}

std::string stored_name(const ModelTensor& spec, bool native) {
  return native ? mistral_tensor_name(spec) : hf_tensor_name(spec);
}

// A norm is one row.
SafetensorsTensor as_matrix(const SafetensorsTensor& tensor, const ModelTensor& spec) {
  SafetensorsTensor matrix = tensor;
  if (spec.is_norm()) matrix.shape.insert(matrix.shape.begin(), 1);
  return matrix;
}

void check_shape(const std::string& name, const std::vector<uint64_t>& shape, const ModelTensor& spec) {
  std::vector<uint64_t> wanted{uint64_t(spec.rows), uint64_t(spec.cols)};
  if (spec.is_norm()) wanted.erase(wanted.begin());
  if (shape != wanted)
    throw Error(ErrorCode::kModelFormat, "tensor '" + name + "' has shape " + shape_text(shape) +
                                             ", but the config demands " + shape_text(wanted));
}

// Tensors that belong to a 4-bit matrix are named after it; rotary_emb.inv_freq is a table that old versions
// of transformers saved and everybody computes.
bool is_companion(const std::string& name, const std::set<std::string, std::less<>>& four_bit) {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  const size_t weight = name.rfind(".weight.");
  return weight != std::string::npos && four_bit.count(name.substr(0, weight + 7)) != 0;
}

std::vector<ModelTensor> checked_tensors(const HfShards& shards, const HfConfig& config) {
  std::vector<ModelTensor> specs = model_tensors(config.model);
  std::set<std::string, std::less<>> used, four_bit;
  // A tied model may have been saved with a copy of the embedding as its head; transformers ignores it.
  if (config.tied) {
    used.insert(stored_name(specs.back(), config.native));
    specs.pop_back();
  }
  for (const ModelTensor& spec : specs) {
    const std::string name = stored_name(spec, config.native);
    const HfShards::Shard* shard = shards.find(name);
    if (shard == nullptr)
      throw Error(ErrorCode::kModelFormat, "tensor '" + name + "' is missing from the checkpoint");
    used.insert(name);
    if (!spec.is_norm() && is_four_bit(shard->header, name)) {
      const FourBitMatrix matrix = read_four_bit(shard->file, shard->header, name);
      check_shape(name, {uint64_t(matrix.rows), uint64_t(matrix.cols)}, spec);
      four_bit.insert(name);
    } else {
      const SafetensorsTensor& tensor = *shard->header.find(name);
      check_shape(name, tensor.shape, spec);
      SafetensorsSource(shard->file, as_matrix(tensor, spec));  // refuses other dtypes
    }
  }
  for (const auto& [name, shard] : shards.tensors()) {
    if (used.count(name) != 0 || is_companion(name, four_bit)) continue;
    throw Error(ErrorCode::kModelUnsupported, "the checkpoint has a tensor '" + name +
                                                  "', which is no part of a Mistral model" +
                                                  (name.ends_with(".bias") ? ": Mistral has no biases" : ""));
  }
  return specs;
}

}  // namespace

HfShards::HfShards(const std::string& directory) {
  const HfFiles files = find_hf_files(directory);
  for (const std::string& name : files.weights) add((fs::path(directory) / name).string());
  if (!files.index.empty()) add_index(directory, (fs::path(directory) / files.index).string());
  if (shards_.empty()) fail_without_weights(directory);
}

void HfShards::add(const std::string& path) {
  shards_.push_back(std::make_unique<const Shard>(path));
  const Shard& shard = *shards_.back();
  for (const SafetensorsTensor& tensor : shard.header.tensors())
    if (!tensors_.emplace(tensor.name, &shard).second)
      throw Error(ErrorCode::kModelFormat,
                  "tensor '" + tensor.name + "' is in two files, '" + path + "' is the second");
}

void HfShards::add_index(const std::string& directory, const std::string& index) {
  const MappedFile file(index);
  const Json json = Json::parse({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()});
  const Json* map = json.find("weight_map");
  if (map == nullptr || map->object() == nullptr)
    throw Error(ErrorCode::kModelFormat, "'" + index + "' has no object 'weight_map'");
  std::set<std::string> names;
  for (const auto& [tensor, value] : *map->object()) {
    const std::string* name = value.string();
    // Nothing but a name: a path could lead out of the directory.
    if (name == nullptr || !name->ends_with(".safetensors") || name->find('/') != std::string::npos ||
        name->find('\0') != std::string::npos)
      throw Error(ErrorCode::kModelFormat, "'weight_map' of '" + index + "' puts tensor '" +
                                               tensor.substr(0, 96) +
                                               "' into something that is no name of a safetensors file");
    names.insert(*name);
  }
  if (names.size() > kMaxShards)
    throw Error(ErrorCode::kModelFormat, "'" + index + "' names " + std::to_string(names.size()) +
                                             " files, more than " + std::to_string(kMaxShards));
  for (const std::string& name : names) add((fs::path(directory) / name).string());
  for (const auto& [tensor, value] : *map->object()) {
    const Shard* shard = find(tensor);
    if (shard == nullptr || !shard->file.path().ends_with("/" + *value.string()))
      throw Error(ErrorCode::kModelFormat, "tensor '" + tensor.substr(0, 96) + "' is not in '" +
                                               *value.string() + "', where '" + index + "' puts it");
  }
}

const HfShards::Shard* HfShards::find(std::string_view tensor) const {
  const auto found = tensors_.find(tensor);
  return found == tensors_.end() ? nullptr : found->second;
}

uint64_t HfShards::bytes() const {
  uint64_t sum = 0;
  for (const auto& shard : shards_) sum += shard->file.size();
  return sum;
}

HfWeights::HfWeights(const HfShards& shards, const HfConfig& config, bool dequantize)
    : WeightStore(checked_tensors(shards, config)),
      shards_(shards),
      head_dim_(config.model.head_dim),
      native_(config.native),
      dequantize_(dequantize) {
  for (const ModelTensor& tensor : tensors()) types_[tensor.name] = open(tensor)->type;
}

std::unique_ptr<const MatrixSource> HfWeights::open(const ModelTensor& tensor) const {
  const std::string name = stored_name(tensor, native_);
  const HfShards::Shard& shard = *shards_.find(name);
  std::unique_ptr<const MatrixSource> source;
  if (!tensor.is_norm() && is_four_bit(shard.header, name)) {
    FourBitMatrix matrix = read_four_bit(shard.file, shard.header, name);
    source = dequantize_ ? std::make_unique<FourBitSource>(shard.file, std::move(matrix))
                         : open_four_bit(shard.file, std::move(matrix));
  } else {
    source = std::make_unique<FiniteSource>(
        std::make_unique<SafetensorsSource>(shard.file, as_matrix(*shard.header.find(name), tensor)), name);
  }
  if (native_ || (tensor.role != TensorRole::kQ && tensor.role != TensorRole::kK)) return source;
  return std::make_unique<ReorderedSource>(std::move(source), head_dim_, checkpoint_row);
}

}  // namespace maestrale
