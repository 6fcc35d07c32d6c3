// SPDX-License-Identifier: Apache-2.0
// Writes a model as a GGUF file, with all threads, a few megabytes in memory at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "io/gguf_writer.h"
#include "model/loader.h"
#include "model/weight_store.h"

namespace maestrale {

struct WrittenModel {
  uint64_t bytes = 0;                  // size of the file
  std::map<QuantType, int64_t> types;  // tensors by type
  // sqrt(sum (written - original)^2 / sum original^2) over all weights whose type changed, 0 when none did.
  double relative_error = 0;
};

// `original`: the weights that `weights` stand for, in the same order, to measure the error against; they are
// read once more for it. `threads` 0: as many as the CPUs this process may use. Progress counts bytes of the
// file. Throws Error: kInvalidArg when `path` cannot be written, kAborted, or what the sources throw; nothing
// is left behind then.
WrittenModel write_gguf(const std::string& path, const GgufMetadata& metadata, const WeightStore& weights,
                        const WeightStore& original, int32_t threads, const LoadCallbacks& callbacks);

}  // namespace maestrale
