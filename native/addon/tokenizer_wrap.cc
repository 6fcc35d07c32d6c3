// SPDX-License-Identifier: Apache-2.0
#include "addon/tokenizer_wrap.h"

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "addon/background.h"
#include "addon/convert.h"
#include "tokenizer/stream_decoder.h"

namespace maestrale {
namespace {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

class TokenizerWrap final : public Napi::ObjectWrap<TokenizerWrap> {
 public:
  explicit TokenizerWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {}

  TokenizerPtr tokenizer;

  Napi::Value encode(const Napi::CallbackInfo& info) { return tokenizer_encode(*tokenizer, info); }
  Napi::Value encode_segments(const Napi::CallbackInfo& info) {
    return tokenizer_encode_segments(*tokenizer, info);
  }
  Napi::Value decode(const Napi::CallbackInfo& info) { return tokenizer_decode(*tokenizer, info); }
  Napi::Value vocabulary(const Napi::CallbackInfo& info) { return tokenizer_vocabulary(*tokenizer, info); }
  Napi::Value stream_decoder(const Napi::CallbackInfo& info) {
    return tokenizer_stream_decoder(tokenizer, info);
  }
};

class StreamDecoderWrap final : public Napi::ObjectWrap<StreamDecoderWrap> {
 public:
  explicit StreamDecoderWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {}

  void attach(TokenizerPtr owner) {
    tokenizer_ = std::move(owner);
    decoder_.emplace(tokenizer_->vocab());
  }

  Napi::Value push(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      std::string text;
      decoder_->push(info[0].ToNumber().Int32Value(), text);
      return Napi::String::New(info.Env(), text);
    });
  }
  Napi::Value end(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      std::string text;
      decoder_->flush(text);
      return Napi::String::New(info.Env(), text);
    });
  }

 private:
  TokenizerPtr tokenizer_;
  std::optional<StreamDecoder> decoder_;
};

}  // namespace

Napi::Value tokenizer_encode(const Tokenizer& tokenizer, const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string text = info[0].ToString().Utf8Value();
    const EncodeOptions options{.add_bos = info[1].ToBoolean(), .parse_special = info[2].ToBoolean()};
    return to_js(info.Env(), std::span<const int32_t>(tokenizer.encode(text, options)));
  });
}

Napi::Value tokenizer_encode_segments(const Tokenizer& tokenizer, const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::vector<Segment> segments = to_segments(info[0]);
    std::vector<PromptSegment> views;
    for (const Segment& segment : segments) {
      if (const auto* text = std::get_if<std::string>(&segment))
        views.emplace_back(std::string_view(*text));
      else
        views.emplace_back(std::get<int32_t>(segment));
    }
    return to_js(info.Env(), std::span<const int32_t>(tokenizer.encode_segments(views)));
  });
}

Napi::Value tokenizer_decode(const Tokenizer& tokenizer, const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::vector<int32_t> tokens = to_tokens(info[0]);
    return Napi::String::New(info.Env(), tokenizer.decode(tokens, {.special_as_text = info[1].ToBoolean()}));
  });
}

Napi::Value tokenizer_vocabulary(const Tokenizer& tokenizer, const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Env env = info.Env();
    const Vocab& vocab = tokenizer.vocab();
    const Napi::Object object = Napi::Object::New(env);
    object.Set("size", vocab.size());
    object.Set("bosId", vocab.bos);
    object.Set("eosId", vocab.eos);
    object.Set("unkId", vocab.unk);
    object.Set("bosToken", tokenizer.piece(vocab.bos));
    object.Set("eosToken", tokenizer.piece(vocab.eos));
    object.Set("addBos", vocab.add_bos);
    const Napi::Object special = Napi::Object::New(env);
    for (const auto& [piece, id] : tokenizer.special_tokens()) special.Set(piece, id);
    object.Set("specialTokens", special);
    if (!vocab.chat_template.empty()) object.Set("chatTemplate", vocab.chat_template);
    const auto tools = vocab.named_chat_templates.find("tool_use");
    if (tools != vocab.named_chat_templates.end()) object.Set("toolTemplate", tools->second);
    return object;
  });
}

Napi::Value tokenizer_stream_decoder(TokenizerPtr tokenizer, const Napi::CallbackInfo& info) {
  const Napi::Object object = info.Env().GetInstanceData<Background>()->stream_decoder_class.New({});
  StreamDecoderWrap::Unwrap(object)->attach(std::move(tokenizer));
  return object;
}

Napi::Object new_tokenizer(Napi::Env env, TokenizerPtr tokenizer) {
  const Napi::Object object = env.GetInstanceData<Background>()->tokenizer_class.New({});
  TokenizerWrap::Unwrap(object)->tokenizer = std::move(tokenizer);
  return object;
}

void define_tokenizer_classes(Napi::Env env) {
  Background& background = *env.GetInstanceData<Background>();
  using T = TokenizerWrap;
  background.tokenizer_class = Napi::Persistent(T::DefineClass(
      env, "NativeTokenizer",
      {T::InstanceMethod<&T::encode>("encode"), T::InstanceMethod<&T::encode_segments>("encodeSegments"),
       T::InstanceMethod<&T::decode>("decode"), T::InstanceMethod<&T::vocabulary>("vocabulary"),
       T::InstanceMethod<&T::stream_decoder>("streamDecoder")}));
  using D = StreamDecoderWrap;
  background.stream_decoder_class = Napi::Persistent(D::DefineClass(
      env, "NativeStreamDecoder", {D::InstanceMethod<&D::push>("push"), D::InstanceMethod<&D::end>("end")}));
}

}  // namespace maestrale
