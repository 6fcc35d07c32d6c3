// SPDX-License-Identifier: Apache-2.0
// Writes a model as a GGUF file.
#pragma once

#include <cstdint>
#include <string>

#include "io/gguf_writer.h"
#include "model/copy_rows.h"

namespace maestrale {

// As copy_rows(), whose result it returns with the size of the file. Throws Error{kInvalidArg} when `path`
// cannot be written, and as copy_rows() does; nothing is left behind then.
WrittenModel write_gguf(const std::string& path, const GgufMetadata& metadata, const WeightStore& weights,
                        const WeightStore& original, int32_t threads, const LoadCallbacks& callbacks);

}  // namespace maestrale
