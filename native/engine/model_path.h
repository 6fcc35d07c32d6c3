// SPDX-License-Identifier: Apache-2.0
// What lies at the path of a model. Everything that opens one asks here first, and opens the file once.
#pragma once

#include <memory>
#include <string>

#include "io/mapped_file.h"

namespace maestrale {

enum class ModelForm {
  kDirectory,  // a checkpoint, in Hugging Face's or Mistral's own layout (see hf_files.h)
  kGguf,
  kPacked,
};

struct ModelPath {
  // Throws Error{kModelFormat} for a file of another kind, and as MappedFile does; what cannot be examined is
  // opened as a file, which says why.
  explicit ModelPath(const std::string& model_path);

  std::string path;
  ModelForm form;
  std::shared_ptr<const MappedFile> file;  // nullptr for a directory
};

}  // namespace maestrale
