// SPDX-License-Identifier: Apache-2.0
// loadModel, loadTokenizer, inspect, pack and quantize: what opens a file, on threads of its own.
#pragma once

#include <napi.h>

namespace maestrale {

Napi::Value load_model(const Napi::CallbackInfo& info);      // (options, onProgress, onEvents)
Napi::Value load_tokenizer(const Napi::CallbackInfo& info);  // (path)
Napi::Value inspect(const Napi::CallbackInfo& info);         // (path)
Napi::Value pack(const Napi::CallbackInfo& info);            // (in, out, onProgress)
Napi::Value merge(const Napi::CallbackInfo& info);           // (in, out, options, onProgress)
Napi::Value quantize(const Napi::CallbackInfo& info);        // (in, out, options, onProgress)

}  // namespace maestrale
