// SPDX-License-Identifier: Apache-2.0
#include "addon/model_wrap.h"

#include <string>
#include <utility>

#include "addon/adapter_jobs.h"
#include "addon/background.h"
#include "addon/convert.h"
#include "addon/tokenizer_wrap.h"
#include "base/memory.h"
#include "engine/memory_budget.h"

namespace maestrale {
namespace {

// Ends an engine: waits for its threads, frees the weights and the tokenizer.
class DisposeJob final : public Job {
 public:
  explicit DisposeJob(LoadedModel& loaded)
      : engine_(std::move(loaded.opened.engine)),
        tokenizer_(std::move(loaded.opened.tokenizer)),
        channel_(loaded.channel) {}
  void work() override {
    engine_.reset();
    tokenizer_.reset();
    return_freed_memory();
  }
  Napi::Value result(Napi::Env env) override {
    // The last events first, so that every request has ended when the promise is fulfilled.
    channel_->flush(env);
    channel_->queue().close();
    return env.Undefined();
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<EventChannel> channel_;
};

[[noreturn]] void throw_disposed() { throw Error(ErrorCode::kDisposed, "the model has been disposed"); }

}  // namespace

void ModelWrap::define(Napi::Env env) {
  using M = ModelWrap;
  env.GetInstanceData<Background>()->model_class = Napi::Persistent(DefineClass(
      env, "NativeModel",
      {M::InstanceMethod<&M::info_object>("info"), M::InstanceMethod<&M::stats>("stats"),
       M::InstanceMethod<&M::encode>("encode"), M::InstanceMethod<&M::encode_segments>("encodeSegments"),
       M::InstanceMethod<&M::decode>("decode"), M::InstanceMethod<&M::vocabulary>("vocabulary"),
       M::InstanceMethod<&M::stream_decoder>("streamDecoder"), M::InstanceMethod<&M::generate>("generate"),
       M::InstanceMethod<&M::logits>("logits"), M::InstanceMethod<&M::score>("score"),
       M::InstanceMethod<&M::load_adapter>("loadAdapter"),
       M::InstanceMethod<&M::unload_adapter>("unloadAdapter"), M::InstanceMethod<&M::cancel>("cancel"),
       M::InstanceMethod<&M::pause>("pause"), M::InstanceMethod<&M::resume>("resume"),
       M::InstanceMethod<&M::dispose>("dispose")}));
}

Napi::Object ModelWrap::create(Napi::Env env, LoadedModel loaded) {
  const Napi::Object object = env.GetInstanceData<Background>()->model_class.New({});
  ModelWrap::Unwrap(object)->attach(std::move(loaded));
  return object;
}

void ModelWrap::attach(LoadedModel loaded) {
  loaded_ = std::move(loaded);
  const Engine& running = *loaded_.opened.engine;
  engine_config_ = running.config();
  device_ = running.device();
  isa_ = running.isa();
  threads_ = running.threads();
  loaded_.channel->deliver = [this](Napi::Env env, std::vector<Event>& events) { deliver(env, events); };
  napi_add_env_cleanup_hook(env_, end_of_environment, this);
}

// Runs before the environment takes down what the engine's threads talk to.
void ModelWrap::end_of_environment(void* self) {
  auto* model = static_cast<ModelWrap*>(self);
  if (model->loaded_.channel) model->loaded_.channel->deliver = nullptr;
  model->loaded_.opened.engine.reset();
}

ModelWrap::~ModelWrap() {
  if (!loaded_.channel) return;
  napi_remove_env_cleanup_hook(env_, end_of_environment, this);
  loaded_.channel->deliver = nullptr;
  if (!loaded_.opened.engine) return;
  // Collected without dispose(): the threads are joined elsewhere.
  loaded_.opened.engine->stop();
  env_.GetInstanceData<Background>()->start(env_, std::make_shared<DisposeJob>(loaded_));
}

Engine& ModelWrap::engine() const {
  if (!loaded_.opened.engine) throw_disposed();
  return *loaded_.opened.engine;
}

std::shared_ptr<const Tokenizer> ModelWrap::tokenizer() const {
  if (!loaded_.opened.tokenizer) throw_disposed();
  return loaded_.opened.tokenizer;
}

void ModelWrap::deliver(Napi::Env env, std::vector<Event>& events) {
  const Napi::Array array = Napi::Array::New(env, events.size());
  uint32_t n = 0;
  for (const Event& event : events) {
    const auto live = live_.find(event.id);
    const Napi::Value values =
        live == live_.end() || live->second.IsEmpty() ? env.Undefined() : Napi::Value(live->second.Value());
    array.Set(n++, to_js(env, event, values));
  }
  const Napi::Function callback = loaded_.on_events.Value();
  for (const Event& event : events)
    if (event.last()) forget(event.id);
  callback.Call({array});
}

void ModelWrap::submit(Request request, Napi::Object values) {
  const uint64_t id = request.id;
  Napi::ObjectReference reference;
  if (!values.IsEmpty()) reference = Napi::Persistent(values);
  engine().submit(std::move(request));
  // Its events come later, on this thread, so nothing is lost by noting the request after the fact.
  live_.emplace(id, std::move(reference));
  if (live_.size() == 1) {
    Ref();
    loaded_.channel->queue().ref();
  }
}

void ModelWrap::forget(uint64_t id) {
  if (live_.erase(id) == 0 || !live_.empty()) return;
  loaded_.channel->queue().unref();
  Unref();
}

void ModelWrap::generate(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { submit(to_request(info[0].As<Napi::Object>()), {}); });
}

void ModelWrap::submit_values(const Napi::CallbackInfo& info, Request::Kind kind) {
  guarded(info.Env(), [&] {
    Request request;
    request.kind = kind;
    request.id = uint64_t(info[0].ToNumber().Int64Value());
    std::vector<int32_t> tokens = to_tokens(info[1]);
    if (info[2].IsString()) request.adapter = info[2].ToString().Utf8Value();
    const uint64_t n = tokens.size();
    if (int64_t(n) > engine_config_.context_length)
      throw Error(ErrorCode::kContextLength, std::to_string(n) + " tokens were given, contextLength is " +
                                                 std::to_string(engine_config_.context_length));
    const uint64_t vocab_size = uint64_t(loaded_.opened.config.vocab_size);
    const uint64_t length = kind == Request::Kind::kLogits ? n * vocab_size : n - (n > 0);
    const uint64_t available = available_memory();
    if (length * sizeof(float) > available)
      throw Error(ErrorCode::kOutOfMemory, "the result takes " + std::to_string(length * sizeof(float)) +
                                               " bytes, " + std::to_string(available) + " are left");
    // The engine writes straight into the array's memory, which stays where it is while it is referenced.
    Napi::Object array;
    try {
      const Napi::Value size = Napi::Number::New(info.Env(), double(length));
      array = info.Env().GetInstanceData<Background>()->float32_array.New({size});
    } catch (const Napi::Error&) {
      throw Error(ErrorCode::kOutOfMemory, "an array of " + std::to_string(length) + " floats was refused");
    }
    request.values = {array.As<Napi::Float32Array>().Data(), size_t(length)};
    request.prompt = std::move(tokens);
    submit(std::move(request), array);
  });
}

void ModelWrap::logits(const Napi::CallbackInfo& info) { submit_values(info, Request::Kind::kLogits); }
void ModelWrap::score(const Napi::CallbackInfo& info) { submit_values(info, Request::Kind::kScore); }

// (path, name, scale)
Napi::Value ModelWrap::load_adapter(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return maestrale::load_adapter(
        info.Env(), engine(),
        {info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value(), info[2].ToNumber().FloatValue(),
         loaded_.opened.path, loaded_.opened.quantization, loaded_.opened.double_quant});
  });
}

// (name)
Napi::Value ModelWrap::unload_adapter(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return maestrale::unload_adapter(info.Env(), engine(), info[0].ToString().Utf8Value());
  });
}

// A disposed model has nothing left to cancel, pause or resume.
void ModelWrap::cancel(const Napi::CallbackInfo& info) {
  if (loaded_.opened.engine) loaded_.opened.engine->cancel(uint64_t(info[0].ToNumber().Int64Value()));
}
void ModelWrap::pause(const Napi::CallbackInfo& info) {
  if (loaded_.opened.engine) loaded_.opened.engine->pause(uint64_t(info[0].ToNumber().Int64Value()));
}
void ModelWrap::resume(const Napi::CallbackInfo& info) {
  if (loaded_.opened.engine) loaded_.opened.engine->resume(uint64_t(info[0].ToNumber().Int64Value()));
}

Napi::Value ModelWrap::dispose(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!disposal_.IsEmpty()) return disposal_.Value();
    engine().stop();
    const Napi::Promise promise =
        info.Env().GetInstanceData<Background>()->start(info.Env(), std::make_shared<DisposeJob>(loaded_));
    disposal_ = Napi::Persistent(promise.As<Napi::Object>());
    return promise;
  });
}

Napi::Value ModelWrap::encode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return tokenizer_encode(*tokenizer(), info); });
}
Napi::Value ModelWrap::encode_segments(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return tokenizer_encode_segments(*tokenizer(), info); });
}
Napi::Value ModelWrap::decode(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return tokenizer_decode(*tokenizer(), info); });
}
Napi::Value ModelWrap::vocabulary(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return tokenizer_vocabulary(*tokenizer(), info); });
}
Napi::Value ModelWrap::stream_decoder(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return tokenizer_stream_decoder(tokenizer(), info); });
}

Napi::Value ModelWrap::info_object(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  constexpr const char* kKvTypes[] = {"f16", "bf16", "q8_0"};
  const FileFacts& facts = loaded_.opened.facts;
  const Napi::Object object = to_js(env, loaded_.opened.config);
  object.Set("architecture", "llama");
  object.Set("trainedContextLength", double(loaded_.opened.config.context_length));
  object.Set("contextLength", double(engine_config_.context_length));
  object.Set("device", device_);
  object.Set("gpuLayers", loaded_.opened.gpu_layers);
  if (const std::string& reason = loaded_.opened.device_reason; !reason.empty())
    object.Set("deviceReason", reason);
  object.Set("isa", isa_);
  object.Set("threads", threads_);
  object.Set("kvCacheType", kKvTypes[size_t(engine_config_.kv_type)]);
  object.Set("maxSequences", engine_config_.max_sequences);
  object.Set("maxBatchTokens", engine_config_.max_batch_tokens);
  object.Set("fileSize", double(facts.size));
  object.Set("parameters", double(facts.parameters));
  const Napi::Object quantization = Napi::Object::New(env);
  for (const auto& [type, n] : facts.quantization) quantization.Set(type, double(n));
  object.Set("quantization", quantization);
  return object;
}

Napi::Value ModelWrap::stats(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const EngineStats stats = engine().stats();
    const Napi::Object object = Napi::Object::New(info.Env());
    object.Set("queued", double(stats.queued));
    object.Set("running", double(stats.running));
    object.Set("kvPagesUsed", double(stats.pages_used));
    object.Set("kvPagesCached", double(stats.pages_cached));
    object.Set("kvPagesTotal", double(stats.pages_total));
    object.Set("promptTokens", double(stats.prompt_tokens));
    object.Set("cachedTokens", double(stats.cached_tokens));
    object.Set("completionTokens", double(stats.completion_tokens));
    object.Set("steps", double(stats.steps));
    object.Set("computeMs", stats.compute_ms);
    const Napi::Array adapters = Napi::Array::New(info.Env());
    for (const AdapterFacts& facts : engine().adapters())
      adapters.Set(adapters.Length(), to_js(info.Env(), facts));
    object.Set("adapters", adapters);
    return object;
  });
}

}  // namespace maestrale
