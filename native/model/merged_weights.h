// SPDX-License-Identifier: Apache-2.0
// The weights of a model with an adapter folded in: w + scaling * lora_b * lora_a in binary32, computed when
// they are read (LoRA, Hu 2021); with DoRA every row is then brought to its magnitude (Liu 2024).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/adapter_file.h"
#include "model/weight_store.h"

namespace maestrale {

class MergedWeights final : public WeightStore {
 public:
  // Both must outlive the store; the adapter was read for this model. Throws Error{kAdapter} when a value of
  // the adapter is no finite number, or it changes the head of a model that has none, or its embedding.
  MergedWeights(const WeightStore& base, const AdapterFile& adapter, float scale);

  QuantType type(const ModelTensor& tensor) const override;
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

  struct Delta {
    std::vector<float> lora_a;     // (rank, cols)
    std::vector<float> lora_b;     // (rows, rank)
    std::vector<float> magnitude;  // (rows), empty without DoRA
    float scaling = 0.0f;
  };

 private:
  const WeightStore& base_;
  std::map<std::string, Delta> deltas_;                      // by the name of the tensor
  std::map<std::string, const MatrixSource*> replacements_;  // of the adapter, by the name of the tensor
};

// Tensors of another store in the types that a function gives them, quantised when they are read.
class RetypedWeights final : public WeightStore {
 public:
  using TypeOf = std::function<QuantType(const ModelTensor&)>;
  // `weights` must outlive the store.
  RetypedWeights(const WeightStore& weights, TypeOf type_of);

  QuantType type(const ModelTensor& tensor) const override { return type_of_(tensor); }
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

 private:
  const WeightStore& weights_;
  const TypeOf type_of_;
};

}  // namespace maestrale
