// SPDX-License-Identifier: Apache-2.0
// The params.json beside Mistral's consolidated weights (mistral-inference, ModelArgs).
#pragma once

#include "base/json.h"
#include "model/hf_config.h"

namespace maestrale {

// Without `rope_theta` the base is that of the release: 1e4 with a sliding window (v0.1), 1e6 without. The
// window may be a list, a pattern over the layers, when it is the same for all of them. Throws
// Error{kModelFormat} naming the field, Error{kModelUnsupported} for what Mistral 7B has not.
HfConfig config_from_mistral(const Json& json);

}  // namespace maestrale
