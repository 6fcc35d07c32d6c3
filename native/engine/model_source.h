// SPDX-License-Identifier: Apache-2.0
// A model on disk, whichever form it has, open for reading: what loading, quantising and merging start from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/model_path.h"
#include "io/gguf_writer.h"
#include "model/config.h"
#include "model/weight_store.h"
#include "tokenizer/vocab.h"

namespace maestrale {

class ModelSource {
 public:
  virtual ~ModelSource() = default;

  const ModelConfig& config() const { return config_; }
  const Vocab& vocab() const { return vocab_; }
  // Valid as long as this object.
  const WeightStore& weights() const { return *weights_; }
  virtual uint64_t bytes() const = 0;  // of all files
  // Whether `path` is one of the files.
  virtual bool contains(const std::string& path) const = 0;
  // What a GGUF file of the model says beside its tensors: all that this one says, or what the model is.
  // Throws Error{kModelUnsupported} for a model without a vocabulary.
  virtual GgufMetadata metadata() const = 0;
  // Paths of the files that a Hugging Face directory has beside its weights and its config, see
  // find_side_files(); none for other models.
  virtual std::vector<std::string> side_files() const { return {}; }

 protected:
  ModelConfig config_;
  Vocab vocab_;
  std::unique_ptr<const WeightStore> weights_;
};

// Opens a GGUF file, a packed file or a checkpoint directory and reads all but the weights. Throws
// Error{kModelFormat, kModelUnsupported}. `dequantize` as for HfWeights.
std::unique_ptr<const ModelSource> open_model_source(const ModelPath& path, bool dequantize = false);

}  // namespace maestrale
