// SPDX-License-Identifier: Apache-2.0
#include "engine/model_path.h"

#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "engine/packed_file.h"

namespace maestrale {
namespace {

bool begins_with(const MappedFile& file, std::string_view magic) {
  return file.size() >= magic.size() && std::memcmp(file.bytes().data(), magic.data(), magic.size()) == 0;
}

// What people try instead of a model.
const char* hint(const std::string& path) {
  if (path.ends_with(".safetensors")) return "; name the directory that it is in";
  if (path.ends_with(".bin") || path.ends_with(".pth") || path.ends_with(".pt"))
    return "; pickle files are never opened, because reading them may run code";
  return "";
}

}  // namespace

ModelPath::ModelPath(const std::string& model_path) : path(model_path), form(ModelForm::kDirectory) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return;
  file = std::make_shared<const MappedFile>(path);
  form = PackedFile::has_magic(*file) ? ModelForm::kPacked : ModelForm::kGguf;
  if (form == ModelForm::kGguf && !begins_with(*file, "GGUF"))
    throw Error(
        ErrorCode::kModelFormat,
        "'" + path + "' is no model: neither a GGUF file nor a packed one nor a directory" + hint(path));
}

}  // namespace maestrale
