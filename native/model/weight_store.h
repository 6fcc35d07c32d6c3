// SPDX-License-Identifier: Apache-2.0
// The weights of one model, wherever they lie: what loading and writing see of GGUF files, Hugging Face
// checkpoints, and weights that are quantised on the way.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "model/model_tensors.h"
#include "quant/matrix_source.h"

namespace maestrale {

class WeightStore {
 public:
  // `tensors` are those that are there: all of model_tensors(), but for the output matrix of a model that
  // computes its logits with the embedding. Constructors check presence, shapes and that nothing is left
  // over.
  explicit WeightStore(std::vector<ModelTensor> tensors) : tensors_(std::move(tensors)) {}
  virtual ~WeightStore() = default;

  const std::vector<ModelTensor>& tensors() const { return tensors_; }
  // Storage type of the source that open() would return.
  virtual QuantType type(const ModelTensor& tensor) const = 0;
  // Its rows, in GGUF's order. The store must outlive the source.
  virtual std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const = 0;

 private:
  const std::vector<ModelTensor> tensors_;
};

}  // namespace maestrale
