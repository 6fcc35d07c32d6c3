// SPDX-License-Identifier: Apache-2.0
// JavaScript values to C++ and back. What arrives here was validated in TypeScript; what still does not
// fit is an Error{kInvalidArg}.
#pragma once

#include <napi.h>

#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/event.h"
#include "engine/merge_adapter.h"
#include "engine/open.h"
#include "engine/quantize_model.h"
#include "engine/sequence.h"

namespace maestrale {

Napi::Error to_js(Napi::Env env, const Error& error);
Napi::Object to_js(Napi::Env env, const Event& event, Napi::Value values);
Napi::Value to_js(Napi::Env env, std::span<const int32_t> tokens);
Napi::Array to_js(Napi::Env env, std::span<const std::string> texts);
Napi::Object to_js(Napi::Env env, const ModelConfig& config);
Napi::Object to_js(Napi::Env env, const WrittenModel& written);

std::vector<int32_t> to_tokens(const Napi::Value& value);  // Int32Array
std::vector<Segment> to_segments(const Napi::Value& value);
Request to_request(const Napi::Object& request);
OpenOptions to_open_options(const Napi::Object& options);
MergeOptions to_merge_options(const Napi::Object& options);
QuantizeOptions to_quantize_options(const Napi::Object& options);

// Runs `body` and turns its exceptions into JavaScript's.
template <class Body>
auto guarded(Napi::Env env, Body&& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw to_js(env, error);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw to_js(env, Error(ErrorCode::kOutOfMemory, "no memory"));
  } catch (const std::exception& error) {
    throw to_js(env, Error(ErrorCode::kInternal, error.what()));
  }
}

}  // namespace maestrale
