// SPDX-License-Identifier: Apache-2.0
// Loading and unloading adapters of a running model, on threads of their own.
#pragma once

#include <napi.h>

#include <string>

#include "engine/engine.h"

namespace maestrale {

struct LoadAdapterOptions {
  std::string path, name;
  float scale = 1.0f;
  std::string base_path, base_quantization;  // of the model itself
  bool base_double_quant = false;
};

// Promises of NativeAdapter and of nothing. The engine may be destroyed meanwhile, which ends the job.
Napi::Promise load_adapter(Napi::Env env, Engine& engine, LoadAdapterOptions options);
Napi::Promise unload_adapter(Napi::Env env, Engine& engine, std::string name);

// NativeAdapter of lib/native/binding.ts.
Napi::Object to_js(Napi::Env env, const AdapterFacts& facts);

}  // namespace maestrale
