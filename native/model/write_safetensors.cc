// SPDX-License-Identifier: Apache-2.0
#include "model/write_safetensors.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json_text.h"
#include "io/safetensors_writer.h"
#include "model/hf_source.h"

namespace maestrale {
namespace {

SafetensorsDtype dtype_of(QuantType type) {
  switch (type) {
    case QuantType::kF32: return SafetensorsDtype::kF32;
    case QuantType::kF16: return SafetensorsDtype::kF16;
    case QuantType::kBF16: return SafetensorsDtype::kBF16;
    default:
      throw Error(ErrorCode::kInternal, "a checkpoint cannot hold " + std::string(quant_traits(type).name));
  }
}

// The matrices of a model with their rows as in a checkpoint.
class CheckpointWeights final : public WeightStore {
 public:
  CheckpointWeights(const WeightStore& inner, int64_t head_dim)
      : WeightStore(inner.tensors()), inner_(inner), head_dim_(head_dim) {}

  QuantType type(const ModelTensor& tensor) const override { return inner_.type(tensor); }
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override {
    std::unique_ptr<const MatrixSource> source = inner_.open(tensor);
    if (tensor.role != TensorRole::kQ && tensor.role != TensorRole::kK) return source;
    return std::make_unique<ReorderedSource>(std::move(source), head_dim_, model_row);
  }

 private:
  const WeightStore& inner_;
  const int64_t head_dim_;
};

using Shard = std::vector<SafetensorsPlan>;

uint64_t bytes_of(const Shard& shard) {
  uint64_t bytes = 0;
  for (const SafetensorsPlan& tensor : shard) bytes += tensor.bytes();
  return bytes;
}

std::vector<Shard> plan(const WeightStore& weights, uint64_t shard_bytes) {
  std::vector<Shard> shards(1);
  for (const ModelTensor& tensor : weights.tensors()) {
    SafetensorsPlan next{hf_tensor_name(tensor), dtype_of(weights.type(tensor)), {uint64_t(tensor.cols)}};
    if (!tensor.is_norm()) next.shape.insert(next.shape.begin(), uint64_t(tensor.rows));
    if (!shards.back().empty() && bytes_of(shards.back()) + next.bytes() > shard_bytes) shards.emplace_back();
    shards.back().push_back(std::move(next));
  }
  return shards;
}

std::string shard_name(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

std::string index_text(const std::vector<Shard>& shards) {
  JsonObjectText files;
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i)
    for (const SafetensorsPlan& tensor : shards[i]) {
      files.add_string(tensor.name, shard_name(i, shards.size()));
      total += tensor.bytes();
    }
  JsonObjectText index;
  index.add("metadata", "{\"total_size\": " + std::to_string(total) + "}");
  index.add("weight_map", files.text());
  return index.text();
}

}  // namespace

WrittenModel write_safetensors(const AtomicDirectory& directory, const ModelConfig& config,
                               const WeightStore& weights, const WeightStore& original, int32_t threads,
                               const LoadCallbacks& callbacks, uint64_t shard_bytes) {
  const CheckpointWeights rows(weights, config.head_dim), original_rows(original, config.head_dim);
  const std::vector<Shard> shards = plan(rows, shard_bytes);
  uint64_t bytes = 0;
  size_t next = 0;
  std::optional<SafetensorsWriter> writer;
  WrittenModel written =
      copy_rows(rows, original_rows, threads, callbacks, [&](std::span<const std::byte> chunk) {
        if (!writer) {
          writer.emplace(directory.file(shard_name(next, shards.size())), shards[next],
                         [&] { check_cancelled(callbacks); });
          ++next;
        }
        writer->write(chunk);
        if (writer->missing() > 0) return;
        bytes += writer->commit();
        writer.reset();
      });
  if (shards.size() > 1) directory.write("model.safetensors.index.json", index_text(shards));
  written.bytes = bytes;
  return written;
}

}  // namespace maestrale
