// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says about itself, for `maestrale inspect`: metadata, tensors and hyperparameters.
#pragma once

#include <napi.h>

#include <optional>
#include <string>

#include "base/error.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/config.h"

namespace maestrale {

class FileInspection {
 public:
  // Reads the header; any thread. Throws Error{kModelFormat, kModelUnsupported, kInvalidArg}.
  explicit FileInspection(const std::string& path);

  // NativeInspection of lib/native/binding.ts. Of an array only the first 8 elements and the length.
  Napi::Object to_js(Napi::Env env) const;

 private:
  MappedFile file_;
  GgufFile header_;
  std::optional<ModelConfig> config_;
  std::optional<Error> config_error_;  // why there is no config
};

}  // namespace maestrale
