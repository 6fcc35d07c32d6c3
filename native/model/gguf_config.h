// SPDX-License-Identifier: Apache-2.0
// The numbers of a model as GGUF metadata: what config_from_gguf() reads.
#pragma once

#include "io/gguf_writer.h"
#include "model/config.h"

namespace maestrale {

// Sets every key that the numbers need, for a model that had another form.
void write_config(const ModelConfig& config, GgufMetadata& metadata);

// Makes the file say its window, also that it has none: files without the key may be taken for v0.1's.
void write_sliding_window(const ModelConfig& config, GgufMetadata& metadata);

}  // namespace maestrale
