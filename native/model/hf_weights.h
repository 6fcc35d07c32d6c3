// SPDX-License-Identifier: Apache-2.0
// The weights of a checkpoint directory: the safetensors files that hf_files.h finds, in BF16, F16 or F32, or
// in 4 bits by bitsandbytes, as blocks or dequantised to what they were.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "model/hf_config.h"
#include "model/weight_store.h"

namespace maestrale {

// The safetensors files of a directory as one set of tensors.
class HfShards {
 public:
  struct Shard {
    explicit Shard(const std::string& path)
        : file(path), header(SafetensorsFile::parse(file.bytes(), file.size())) {}
    const MappedFile file;
    const SafetensorsFile header;
  };

  // Only files inside `directory` are opened, whatever the index says. Throws Error{kModelFormat} for an
  // index that does not fit the files, Error{kModelUnsupported} for a directory that holds its weights
  // otherwise, e.g. pickled, which is never read: reading it may run code.
  explicit HfShards(const std::string& directory);

  // The file that holds the tensor, nullptr when none does.
  const Shard* find(std::string_view tensor) const;
  const std::map<std::string, const Shard*, std::less<>>& tensors() const { return tensors_; }
  uint64_t bytes() const;  // of all files

 private:
  void add(const std::string& path);
  void add_index(const std::string& directory, const std::string& index);

  std::vector<std::unique_ptr<const Shard>> shards_;
  std::map<std::string, const Shard*, std::less<>> tensors_;
};

class HfWeights final : public WeightStore {
 public:
  // `shards` must outlive the store. Throws Error{kModelFormat} naming the tensor that is missing or has
  // another shape, Error{kModelUnsupported} for other dtypes and for tensors that Mistral does not have.
  // Reading a value that is not finite throws Error{kModelFormat}. `dequantize`: 4-bit matrices as what they
  // were, for who cannot compute with NF4 and FP4.
  HfWeights(const HfShards& shards, const HfConfig& config, bool dequantize = false);

  QuantType type(const ModelTensor& tensor) const override { return types_.at(tensor.name); }
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

 private:
  const HfShards& shards_;
  const int32_t head_dim_;
  const bool native_, dequantize_;
  std::map<std::string, QuantType> types_;  // by name; that of a 4-bit matrix depends on its scales
};

}  // namespace maestrale
