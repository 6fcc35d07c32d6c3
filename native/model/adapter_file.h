// SPDX-License-Identifier: Apache-2.0
// A LoRA adapter as it lies on disk, whatever its format: which matrices of the base model it changes, and
// how. Everything is checked against the base model before a value is read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/mapped_file.h"
#include "model/config.h"
#include "model/model_tensors.h"
#include "quant/matrix_source.h"

namespace maestrale {

// w becomes w + scaling * lora_b * lora_a; with a magnitude (DoRA) every row of that is brought to the length
// that the magnitude says. Rows of Q and K are in GGUF's order.
struct AdapterDelta {
  ModelTensor target;
  std::unique_ptr<const MatrixSource> lora_a;     // (rank, target.cols)
  std::unique_ptr<const MatrixSource> lora_b;     // (target.rows, rank)
  std::unique_ptr<const MatrixSource> magnitude;  // (target.rows, 1), or nullptr
  float scaling = 0.0f;

  int64_t rank() const { return lora_a->rows; }
};

// The embedding or the output matrix, trained as a whole.
struct AdapterReplacement {
  ModelTensor target;
  std::unique_ptr<const MatrixSource> rows;
};

struct AdapterFile {
  std::string path;
  std::shared_ptr<const MappedFile> file;  // that the sources read
  std::vector<AdapterDelta> deltas;
  std::vector<AdapterReplacement> replacements;
};

// A PEFT directory (adapter_config.json, adapter_model.safetensors) or a GGUF adapter for a model of this
// shape. Throws Error{kAdapter} with the path and what is wrong or not supported, by name; Error{kInvalidArg}
// when `path` cannot be opened.
AdapterFile read_adapter_file(const std::string& path, const ModelConfig& config);

// What went wrong with the adapter at `path`: that is always kAdapter, and says which one.
Error about_adapter(const std::string& path, const Error& error);

// The values of a matrix that is small enough to be held as floats. Throws Error{kAdapter} naming `name` when
// one is not finite.
std::vector<float> read_finite(const MatrixSource& source, const std::string& name);

}  // namespace maestrale
