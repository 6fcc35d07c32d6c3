// SPDX-License-Identifier: Apache-2.0
#include "engine/model_path.h"

#include <filesystem>

#include "engine/packed_file.h"

namespace maestrale {

ModelPath::ModelPath(const std::string& model_path) : path(model_path), form(ModelForm::kDirectory) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return;
  file = std::make_shared<const MappedFile>(path);
  form = PackedFile::has_magic(*file) ? ModelForm::kPacked : ModelForm::kGguf;
}

}  // namespace maestrale
