// SPDX-License-Identifier: Apache-2.0
// What a GGUF file or a checkpoint directory says about itself, for `maestrale inspect`: metadata, tensors
// and hyperparameters.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

namespace maestrale {

class Inspection {
 public:
  virtual ~Inspection() = default;
  // NativeInspection of lib/native/binding.ts. Of an array only the first 8 elements and the length.
  virtual Napi::Object to_js(Napi::Env env) const = 0;
};

// Reads the headers; any thread. Throws Error{kModelFormat, kModelUnsupported, kInvalidArg}.
std::unique_ptr<const Inspection> inspect_path(const std::string& path);

}  // namespace maestrale
