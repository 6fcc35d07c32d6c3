// SPDX-License-Identifier: Apache-2.0
// The tokenizer as JavaScript sees it: a class of its own, and the methods that a model has too.
#pragma once

#include <napi.h>

#include <memory>

#include "tokenizer/sentencepiece.h"

namespace maestrale {

// The arguments are those of NativeTokenizer in lib/native/binding.ts.
Napi::Value tokenizer_encode(const Tokenizer& tokenizer, const Napi::CallbackInfo& info);
Napi::Value tokenizer_encode_segments(const Tokenizer& tokenizer, const Napi::CallbackInfo& info);
Napi::Value tokenizer_decode(const Tokenizer& tokenizer, const Napi::CallbackInfo& info);
Napi::Value tokenizer_vocabulary(const Tokenizer& tokenizer, const Napi::CallbackInfo& info);
Napi::Value tokenizer_stream_decoder(std::shared_ptr<const Tokenizer> tokenizer,
                                     const Napi::CallbackInfo& info);

Napi::Object new_tokenizer(Napi::Env env, std::shared_ptr<const Tokenizer> tokenizer);

// Defines the classes; once per environment.
void define_tokenizer_classes(Napi::Env env);

}  // namespace maestrale
