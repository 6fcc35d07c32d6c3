// SPDX-License-Identifier: Apache-2.0
#include "addon/convert.h"

#include <algorithm>
#include <limits>
#include <variant>

namespace maestrale {
namespace {

// A field of an options object; `what` names the type in the message.
Napi::Value field(const Napi::Object& object, const char* name, bool (Napi::Value::*is)() const) {
  const Napi::Value value = object.Get(name);
  if (!(value.*is)())
    throw Error(ErrorCode::kInvalidArg, std::string("option '") + name + "' is missing or has a wrong type");
  return value;
}

double number(const Napi::Object& object, const char* name) {
  return field(object, name, &Napi::Value::IsNumber).As<Napi::Number>().DoubleValue();
}

double number_or(const Napi::Object& object, const char* name, double otherwise) {
  return object.Get(name).IsUndefined() ? otherwise : number(object, name);
}

// Numbers beyond the type's range become its ends, NaN becomes 0.
template <class T>
T integer(const Napi::Object& object, const char* name) {
  const double value = number(object, name);
  if (value >= double(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
  if (value <= double(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  return value == value ? T(value) : T(0);
}

std::string text(const Napi::Object& object, const char* name) {
  return field(object, name, &Napi::Value::IsString).As<Napi::String>().Utf8Value();
}

Prompt to_prompt(const Napi::Value& value) {
  if (value.IsString()) return value.As<Napi::String>().Utf8Value();
  if (value.IsArray()) return to_segments(value);
  return to_tokens(value);
}

Napi::Array to_js(Napi::Env env, const std::vector<Sampler::Sample>& samples) {
  const auto entry = [&](int32_t token, float logprob) {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("token", token);
    object.Set("logprob", logprob);
    return object;
  };
  const Napi::Array array = Napi::Array::New(env, samples.size());
  for (uint32_t i = 0; i < samples.size(); ++i) {
    const Napi::Object object = entry(samples[i].token, samples[i].logprob);
    const Napi::Array top = Napi::Array::New(env, samples[i].top.size());
    for (uint32_t k = 0; k < samples[i].top.size(); ++k)
      top.Set(k, entry(samples[i].top[k].token, samples[i].top[k].logprob));
    object.Set("top", top);
    array.Set(i, object);
  }
  return array;
}

Napi::Object to_js(Napi::Env env, const Done& done) {
  constexpr const char* kReasons[] = {"stop", "length", "abort"};
  const Napi::Object object = Napi::Object::New(env);
  object.Set("finishReason", kReasons[size_t(done.reason)]);
  object.Set("promptTokens", double(done.prompt_tokens));
  object.Set("cachedTokens", double(done.cached_tokens));
  object.Set("completionTokens", double(done.completion_tokens));
  object.Set("guessedTokens", double(done.guessed_tokens));
  object.Set("acceptedTokens", double(done.accepted_tokens));
  object.Set("queueMs", done.queue_ms);
  object.Set("prefillMs", done.prefill_ms);
  object.Set("ttftMs", done.ttft_ms);
  object.Set("decodeMs", done.decode_ms);
  object.Set("seed", double(done.seed));
  return object;
}

}  // namespace

Napi::Error to_js(Napi::Env env, const Error& error) {
  Napi::Error js = Napi::Error::New(env, error.message());
  js.Set("code", Napi::String::New(env, error_code_name(error.code())));
  return js;
}

Napi::Value to_js(Napi::Env env, std::span<const int32_t> tokens) {
  Napi::Int32Array array = Napi::Int32Array::New(env, tokens.size());
  std::copy(tokens.begin(), tokens.end(), array.Data());
  return array;
}

Napi::Array to_js(Napi::Env env, std::span<const std::string> texts) {
  const Napi::Array array = Napi::Array::New(env, texts.size());
  for (size_t i = 0; i < texts.size(); ++i) array.Set(uint32_t(i), texts[i]);
  return array;
}

Napi::Object to_js(Napi::Env env, const Event& event, Napi::Value values) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("id", double(event.id));
  if (!event.text.empty()) object.Set("text", Napi::String::New(env, event.text));
  if (!event.tokens.empty()) object.Set("tokens", to_js(env, std::span(event.tokens)));
  if (!event.logprobs.empty()) object.Set("logprobs", to_js(env, event.logprobs));
  if (event.done) object.Set("done", to_js(env, *event.done));
  if (event.values_ready) object.Set("values", values);
  if (event.error) {
    const Napi::Object error = Napi::Object::New(env);
    error.Set("code", error_code_name(event.error->code()));
    error.Set("message", event.error->message());
    object.Set("error", error);
  }
  return object;
}

Napi::Object to_js(Napi::Env env, const ModelConfig& config) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("name", config.name);
  object.Set("version", config.version);
  object.Set("dim", config.dim);
  object.Set("hiddenDim", config.hidden_dim);
  object.Set("nLayers", config.n_layers);
  object.Set("nHeads", config.n_heads);
  object.Set("nKvHeads", config.n_kv_heads);
  object.Set("headDim", config.head_dim);
  object.Set("vocabSize", config.vocab_size);
  object.Set("normEps", double(config.norm_eps));
  object.Set("ropeTheta", config.rope_theta);
  object.Set("slidingWindow", double(config.sliding_window));
  object.Set("slidingWindowSource", config.sliding_window_source);
  object.Set("contextLength", double(config.context_length));
  return object;
}

Napi::Object to_js(Napi::Env env, const WrittenModel& written) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("size", double(written.bytes));
  object.Set("relativeError", written.relative_error);
  const Napi::Object types = Napi::Object::New(env);
  for (const auto& [type, count] : written.types) types.Set(lower_case_name(type), double(count));
  object.Set("quantization", types);
  return object;
}

std::vector<int32_t> to_tokens(const Napi::Value& value) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array)
    throw Error(ErrorCode::kInvalidArg, "tokens must be an Int32Array");
  const auto array = value.As<Napi::Int32Array>();
  const int32_t* data = array.Data();
  return std::vector<int32_t>(data, data + array.ElementLength());
}

std::vector<Segment> to_segments(const Napi::Value& value) {
  if (!value.IsArray()) throw Error(ErrorCode::kInvalidArg, "segments must be an array");
  const auto array = value.As<Napi::Array>();
  std::vector<Segment> segments;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value item = array.Get(i);
    if (item.IsNumber())
      segments.emplace_back(item.As<Napi::Number>().Int32Value());
    else if (item.IsString())
      segments.emplace_back(item.As<Napi::String>().Utf8Value());
    else
      throw Error(ErrorCode::kInvalidArg, "segments must be token ids and strings");
  }
  return segments;
}

Request to_request(const Napi::Object& js) {
  Request request;
  request.id = integer<uint64_t>(js, "id");
  request.prompt = to_prompt(js.Get("prompt"));
  request.max_new_tokens = integer<int64_t>(js, "maxNewTokens");
  SamplingParams& sampling = request.sampling;
  sampling.temperature = float(number(js, "temperature"));
  sampling.top_k = integer<int32_t>(js, "topK");
  sampling.top_p = float(number(js, "topP"));
  sampling.min_p = float(number(js, "minP"));
  sampling.typical_p = float(number_or(js, "typicalP", 1.0));
  sampling.repetition_penalty = float(number(js, "repetitionPenalty"));
  sampling.frequency_penalty = float(number(js, "frequencyPenalty"));
  sampling.presence_penalty = float(number(js, "presencePenalty"));
  sampling.last_n_tokens = integer<int32_t>(js, "lastNTokens");
  sampling.seed = integer<uint64_t>(js, "seed");
  sampling.logprobs = integer<int32_t>(js, "logprobs");
  const std::vector<int32_t> biased = to_tokens(js.Get("logitBiasTokens"));
  const auto biases = field(js, "logitBiasValues", &Napi::Value::IsTypedArray).As<Napi::TypedArray>();
  if (biases.TypedArrayType() != napi_float32_array || biases.ElementLength() != biased.size())
    throw Error(ErrorCode::kInvalidArg, "logitBiasTokens and logitBiasValues do not fit together");
  for (size_t i = 0; i < biased.size(); ++i)
    sampling.logit_bias.push_back({biased[i], biases.As<Napi::Float32Array>().Data()[i]});
  const auto stops = field(js, "stop", &Napi::Value::IsArray).As<Napi::Array>();
  for (uint32_t i = 0; i < stops.Length(); ++i) request.stop.push_back(stops.Get(i).ToString().Utf8Value());
  if (!js.Get("adapter").IsUndefined()) request.adapter = text(js, "adapter");
  request.timeout_ms = number_or(js, "timeoutMs", 0.0);
  request.ignore_eos = js.Get("ignoreEos").ToBoolean();
  request.speculation.max_tokens = integer<int32_t>(js, "guessTokens");
  request.speculation.min_ngram = integer<int32_t>(js, "guessNgram");
  request.answer = js.Get("answer").ToBoolean();
  return request;
}

OpenOptions to_open_options(const Napi::Object& js) {
  OpenOptions options;
  options.path = text(js, "path");
  options.device = text(js, "device");
  options.threads = integer<int32_t>(js, "threads");
  if (!js.Get("isa").IsUndefined()) options.isa = text(js, "isa");
  options.context_length = integer<int64_t>(js, "contextLength");
  options.sliding_window = integer<int64_t>(js, "slidingWindow");
  const std::string kv = text(js, "kvCacheType");
  if (kv != "f16" && kv != "bf16" && kv != "q8_0")
    throw Error(ErrorCode::kInvalidArg, "kvCacheType must be 'f16', 'bf16' or 'q8_0', not '" + kv + "'");
  options.kv_type = kv == "f16" ? KvType::kF16 : kv == "bf16" ? KvType::kBF16 : KvType::kQ8_0;
  options.max_sequences = std::max(1, integer<int32_t>(js, "maxSequences"));
  options.max_batch_tokens = std::max(1, integer<int32_t>(js, "maxBatchTokens"));
  options.max_queue = std::max(0, integer<int32_t>(js, "maxQueue"));
  options.gpu_layers = integer<int32_t>(js, "gpuLayers");
  if (!js.Get("quantization").IsUndefined()) options.quantization = text(js, "quantization");
  options.double_quant = js.Get("doubleQuant").ToBoolean();
  return options;
}

MergeOptions to_merge_options(const Napi::Object& js) {
  MergeOptions options;
  options.adapter = text(js, "adapter");
  options.scale = float(number(js, "scale"));
  options.type = text(js, "type");
  options.format = text(js, "format") == "safetensors" ? MergeFormat::kSafetensors : MergeFormat::kGguf;
  options.threads = integer<int32_t>(js, "threads");
  return options;
}

QuantizeOptions to_quantize_options(const Napi::Object& js) {
  QuantizeOptions options;
  options.type = text(js, "type");
  options.threads = integer<int32_t>(js, "threads");
  options.sliding_window = integer<int64_t>(js, "slidingWindow");
  return options;
}

}  // namespace maestrale
