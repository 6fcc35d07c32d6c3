// SPDX-License-Identifier: Apache-2.0
// From a model in any form to a GGUF file of other types.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/model_source.h"
#include "model/quant_mix.h"
#include "model/write_gguf.h"

namespace maestrale {

struct QuantizeOptions {
  std::string type;             // name of a QuantMix
  int32_t threads = 0;          // 0: the CPUs this process may use
  int64_t sliding_window = -1;  // -1: what the model says; 0: full attention
};

// Writes the model at `in` to `out` with its metadata, vocabulary and chat templates, and with its sliding
// window, which most files keep to themselves. `out` appears when it is complete and on disk. Throws Error:
// kInvalidArg for an unknown type and when `out` cannot be written or is a file of `in`, those of
// open_model_source() and write_gguf().
WrittenModel quantize_model(const std::string& in, const std::string& out, const QuantizeOptions& options,
                            const LoadCallbacks& callbacks);

// The mix of that name. Throws Error{kInvalidArg} when there is none and when GGUF files cannot hold its
// type.
const QuantMix& gguf_mix(const std::string& name);

// The model at `in`, to be written anew to `out`: 4-bit matrices of bitsandbytes as what they were. Throws as
// open_model_source() does, Error{kInvalidArg} when `out` is a file of the model.
std::unique_ptr<const ModelSource> open_to_rewrite(const std::string& in, const std::string& out);

// Sets what a file says about how its weights are stored, and drops what no longer holds.
void write_quantization(uint32_t file_type, GgufMetadata& metadata);

}  // namespace maestrale
