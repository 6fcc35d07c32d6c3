// SPDX-License-Identifier: Apache-2.0
// From a model and an adapter to a GGUF file or a Hugging Face directory of both.
#pragma once

#include <cstdint>
#include <string>

#include "model/copy_rows.h"

namespace maestrale {

enum class MergeFormat { kGguf, kSafetensors };

struct MergeOptions {
  std::string adapter;  // path of a PEFT directory or a GGUF adapter
  float scale = 1.0f;   // multiplies what the adapter adds
  // Name of a QuantMix; "": every matrix keeps its type, but in a Hugging Face directory, which holds F32,
  // F16 and BF16 only, others become F16.
  std::string type;
  MergeFormat format = MergeFormat::kGguf;
  int32_t threads = 0;  // 0: the CPUs this process may use
};

// Writes the model at `in` with the adapter folded into its weights to `out`: dequantised, added in binary32,
// quantised anew. The error of the result is that of the last step, against the merged weights. Memory: the
// adapter and a few megabytes. Throws Error: kAdapter, kInvalidArg for a type that the format cannot hold,
// and as quantize_model() and write_checkpoint() do.
WrittenModel merge_adapter(const std::string& in, const std::string& out, const MergeOptions& options,
                           const LoadCallbacks& callbacks);

}  // namespace maestrale
