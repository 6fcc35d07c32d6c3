// SPDX-License-Identifier: Apache-2.0
// The one exception type of the core. A library that lives inside somebody's server never aborts
// and never prints: every failure is an Error with a code that stays the same between releases.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace maestrale {

enum class ErrorCode {
  kInvalidArg,        // the caller's option is wrong
  kModelFormat,       // the file is damaged or hostile
  kModelUnsupported,  // the file is sound, this engine does not run it
  kContextLength,     // the sequence would be longer than contextLength
  kOutOfMemory,
  kDevice,     // a compute device failed or is missing
  kQueueFull,  // the bounded request queue is full
  kAdapter,    // a LoRA adapter does not fit or is damaged
  kDisposed,   // the model was disposed
  kNativeLoad,
  kAborted,   // the caller's signal stopped the work
  kInternal,  // a defect of ours: an invariant does not hold
};

// The stable string that becomes `.code` in JavaScript, e.g. "ERR_MODEL_FORMAT".
constexpr const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArg: return "ERR_INVALID_ARG";
    case ErrorCode::kModelFormat: return "ERR_MODEL_FORMAT";
    case ErrorCode::kModelUnsupported: return "ERR_MODEL_UNSUPPORTED";
    case ErrorCode::kContextLength: return "ERR_CONTEXT_LENGTH";
    case ErrorCode::kOutOfMemory: return "ERR_OUT_OF_MEMORY";
    case ErrorCode::kDevice: return "ERR_DEVICE";
    case ErrorCode::kQueueFull: return "ERR_QUEUE_FULL";
    case ErrorCode::kAdapter: return "ERR_ADAPTER";
    case ErrorCode::kDisposed: return "ERR_DISPOSED";
    case ErrorCode::kNativeLoad: return "ERR_NATIVE_LOAD";
    case ErrorCode::kAborted: return "ERR_ABORTED";
    case ErrorCode::kInternal: return "ERR_INTERNAL";
  }
  return "ERR_INTERNAL";
}

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace maestrale
