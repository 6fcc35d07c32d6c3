// SPDX-License-Identifier: Apache-2.0
// The numbers of a model as a config.json: what config_from_hf() reads.
#pragma once

#include "base/json_text.h"
#include "model/config.h"
#include "quant/types.h"

namespace maestrale {

// `type`: of most weights. `tied`: the logits are computed with the embedding.
JsonObjectText hf_config(const ModelConfig& config, QuantType type, bool tied);

}  // namespace maestrale
