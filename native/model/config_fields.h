// SPDX-License-Identifier: Apache-2.0
// The shape of a model out of a JSON file, whichever names the file has for it.
#pragma once

#include "base/json_fields.h"
#include "model/config.h"

namespace maestrale {

// The names of the fields in one kind of file.
struct ShapeFields {
  const char *dim, *hidden_dim, *n_layers, *n_heads, *n_kv_heads, *head_dim, *vocab_size, *norm_eps;
};

// Reads and checks them; `n_kv_heads` of the config is taken when the file has none. Throws
// Error{kModelFormat} and Error{kModelUnsupported} naming the field.
void read_shape(const JsonFields& json, const ShapeFields& fields, ModelConfig& config);

// A RoPE base, finite and above 0.
double checked_rope_theta(const JsonFields& json, double theta);

}  // namespace maestrale
