// SPDX-License-Identifier: Apache-2.0
// The weights of a GGUF file, as stored.
#pragma once

#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/weight_store.h"

namespace maestrale {

// The rows of one tensor, as stored. The file must outlive the source.
std::unique_ptr<const MatrixSource> gguf_matrix(const MappedFile& file, const GgufTensor& tensor);

class GgufWeights final : public WeightStore {
 public:
  // Checks every tensor's presence and shape against `config`. File and header must outlive the store.
  // Throws Error{kModelFormat} naming the tensor, Error{kModelUnsupported} for one that is no part of a
  // Mistral model.
  GgufWeights(const MappedFile& file, const GgufFile& header, const ModelConfig& config);

  QuantType type(const ModelTensor& tensor) const override;
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

 private:
  const MappedFile& file_;
  const GgufFile& header_;
};

}  // namespace maestrale
