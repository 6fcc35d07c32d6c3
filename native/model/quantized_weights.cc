// SPDX-License-Identifier: Apache-2.0
#include "model/quantized_weights.h"

#include <utility>

#include "model/hf_source.h"

namespace maestrale {

QuantizedWeights::QuantizedWeights(const WeightStore& inner, const QuantMix& mix, const ModelConfig& config)
    : WeightStore(inner.tensors()),
      inner_(inner),
      mix_(mix),
      config_(config),
      tied_(inner.tensors().back().role != TensorRole::kOutput) {}

QuantType QuantizedWeights::type(const ModelTensor& tensor) const {
  return mixed_type(mix_, tensor, config_, tied_);
}

std::unique_ptr<const MatrixSource> QuantizedWeights::open(const ModelTensor& tensor) const {
  std::unique_ptr<const MatrixSource> source = inner_.open(tensor);
  const QuantType wanted = type(tensor);
  if (source->type == wanted) return source;
  return std::make_unique<QuantizingSource>(std::move(source), wanted, tensor.name);
}

}  // namespace maestrale
