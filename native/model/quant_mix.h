// SPDX-License-Identifier: Apache-2.0
// Which storage type each tensor of a model gets when it is quantised: one type for all matrices, or one of
// the mixes in which models are published, which give more bits to matrices and layers that need them. The
// rules are those of llama.cpp's quantiser for this architecture, without an importance matrix.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "model/model_tensors.h"
#include "quant/types.h"

namespace maestrale {

struct QuantMix {
  std::string_view name;  // "q4_k_m", as users write it
  QuantType base;         // of most matrices
  uint32_t file_type;     // general.file_type of GGUF (llama_ftype); 0 for types that GGUF has not
};

// Throws Error{kInvalidArg} listing the names.
const QuantMix& quant_mix(std::string_view name);

// The type of `tensor`. `tied`: the model has no output matrix, the embedding serves as one. Norms stay F32.
// A matrix whose columns are no whole blocks gets the nearest type with smaller blocks.
QuantType mixed_type(const QuantMix& mix, const ModelTensor& tensor, const ModelConfig& config, bool tied);

}  // namespace maestrale
