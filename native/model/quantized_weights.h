// SPDX-License-Identifier: Apache-2.0
// The weights of another store in other types, quantised when they are read. With NF4 and FP4 the embedding
// and the output matrix stay as they are, as with bitsandbytes.
#pragma once

#include <functional>
#include <memory>

#include "model/quant_mix.h"
#include "model/weight_store.h"

namespace maestrale {

class QuantizedWeights final : public WeightStore {
 public:
  // `inner` must outlive the store. Tensors that have their type already are passed on as stored. Sources
  // throw Error{kModelFormat} naming matrix and row when a weight does not fit its type. `double_quant`: the
  // scales of NF4 and FP4 are rounded to 8 bits as bitsandbytes does, for the same values.
  QuantizedWeights(const WeightStore& inner, const QuantMix& mix, const ModelConfig& config,
                   bool double_quant = false);

  QuantType type(const ModelTensor& tensor) const override;
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

 private:
  const WeightStore& inner_;
  const QuantMix& mix_;
  const ModelConfig config_;
  const bool tied_, double_quant_;
};

}  // namespace maestrale
