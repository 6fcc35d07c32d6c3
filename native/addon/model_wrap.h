// SPDX-License-Identifier: Apache-2.0
// A loaded model as JavaScript sees it (NativeModel in lib/native/binding.ts). The object stays alive
// while requests run; letting go of it, dispose() and the end of the environment all end the engine.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_map>

#include "addon/event_channel.h"
#include "engine/open.h"

namespace maestrale {

// What loading produces: the engine already talks to the channel.
struct LoadedModel {
  OpenedModel opened;
  std::shared_ptr<EventChannel> channel;
  Napi::FunctionReference on_events;
};

class ModelWrap final : public Napi::ObjectWrap<ModelWrap> {
 public:
  static void define(Napi::Env env);
  static Napi::Object create(Napi::Env env, LoadedModel loaded);

  explicit ModelWrap(const Napi::CallbackInfo& info) : ObjectWrap(info), env_(info.Env()) {}
  ~ModelWrap() override;

 private:
  void attach(LoadedModel loaded);
  void deliver(Napi::Env env, std::vector<Event>& events);
  void submit(Request request, Napi::Object values);  // `values` may be empty
  void submit_values(const Napi::CallbackInfo& info, Request::Kind kind);
  void forget(uint64_t id);
  Engine& engine() const;                              // throws Error{kDisposed}
  std::shared_ptr<const Tokenizer> tokenizer() const;  // throws Error{kDisposed}
  static void end_of_environment(void* self);

  Napi::Value info_object(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value encode_segments(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value vocabulary(const Napi::CallbackInfo& info);
  Napi::Value stream_decoder(const Napi::CallbackInfo& info);
  void generate(const Napi::CallbackInfo& info);
  void logits(const Napi::CallbackInfo& info);
  void score(const Napi::CallbackInfo& info);
  Napi::Value load_adapter(const Napi::CallbackInfo& info);
  Napi::Value unload_adapter(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  void pause(const Napi::CallbackInfo& info);
  void resume(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  Napi::Env env_;
  LoadedModel loaded_;
  EngineConfig engine_config_;
  std::string device_, isa_;
  int32_t threads_ = 0;
  // Requests that have not ended, with the Float32Array that the engine fills in, if any.
  std::unordered_map<uint64_t, Napi::ObjectReference> live_;
  Napi::ObjectReference disposal_;  // the promise of dispose(), once called
};

}  // namespace maestrale
