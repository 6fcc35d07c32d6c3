// SPDX-License-Identifier: Apache-2.0
#include "engine/model_source.h"

#include <filesystem>
#include <utility>

#include "base/error.h"
#include "engine/packed_file.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/gguf_config.h"
#include "model/gguf_weights.h"
#include "model/hf_files.h"
#include "model/hf_weights.h"
#include "tokenizer/gguf_vocab.h"
#include "tokenizer/hf_vocab.h"

namespace maestrale {
namespace {

bool same_file(const std::string& a, const std::string& b) {
  std::error_code absent;
  return std::filesystem::equivalent(a, b, absent);
}

class GgufSource final : public ModelSource {
 public:
  explicit GgufSource(std::shared_ptr<const MappedFile> file)
      : file_(std::move(file)), header_(GgufFile::parse(file_->bytes(), file_->size())) {
    config_ = config_from_gguf(header_);
    vocab_ = vocab_from_gguf(header_);
    weights_ = std::make_unique<GgufWeights>(*file_, header_, config_);
  }
  uint64_t bytes() const override { return file_->size(); }
  bool contains(const std::string& path) const override { return same_file(path, file_->path()); }
  GgufMetadata metadata() const override { return GgufMetadata(header_); }

 private:
  const std::shared_ptr<const MappedFile> file_;
  const GgufFile header_;
};

class PackedSource final : public ModelSource {
 public:
  explicit PackedSource(std::shared_ptr<const MappedFile> file) : packed_(std::move(file)) {
    config_ = config_from_gguf(packed_.gguf());
    vocab_ = vocab_from_gguf(packed_.gguf());
    weights_ = std::make_unique<PackedWeights>(packed_, config_);
  }
  uint64_t bytes() const override { return packed_.file()->size(); }
  bool contains(const std::string& path) const override { return same_file(path, packed_.file()->path()); }
  GgufMetadata metadata() const override { return GgufMetadata(packed_.gguf()); }

 private:
  const PackedFile packed_;
};

class HfSource final : public ModelSource {
 public:
  HfSource(const std::string& directory, bool dequantize) : directory_(directory), shards_(directory) {
    const HfConfig config = read_hf_config(directory);
    native_ = config.native;
    config_ = config.model;
    vocab_ = vocab_from_hf(directory, config.model.vocab_size);
    weights_ = std::make_unique<HfWeights>(shards_, config, dequantize);
  }
  uint64_t bytes() const override { return shards_.bytes(); }
  bool contains(const std::string& path) const override {
    for (const auto& [name, shard] : shards_.tensors())
      if (same_file(path, shard->file.path())) return true;
    return false;
  }
  GgufMetadata metadata() const override {
    if (!vocab_.unusable.empty())
      throw Error(ErrorCode::kModelUnsupported, "a GGUF file needs a vocabulary: " + vocab_.unusable);
    GgufMetadata metadata;
    write_config(config_, metadata);
    write_vocab(vocab_, config_.vocab_size, metadata);
    return metadata;
  }
  std::vector<std::string> side_files() const override {
    std::vector<std::string> paths;
    if (!native_)
      for (const std::string& name : find_side_files(directory_))
        paths.push_back((std::filesystem::path(directory_) / name).string());
    return paths;
  }

 private:
  const std::string directory_;
  const HfShards shards_;
  bool native_ = false;
};

}  // namespace

std::unique_ptr<const ModelSource> open_model_source(const ModelPath& path, bool dequantize) {
  switch (path.form) {
    case ModelForm::kDirectory: return std::make_unique<HfSource>(path.path, dequantize);
    case ModelForm::kGguf: return std::make_unique<GgufSource>(path.file);
    case ModelForm::kPacked: break;
  }
  return std::make_unique<PackedSource>(path.file);
}

}  // namespace maestrale
