// SPDX-License-Identifier: Apache-2.0
#include "addon/js_queue.h"

#include <mutex>
#include <utility>

#include "base/error.h"

namespace maestrale {

struct JsQueue::Shared {
  std::mutex mutex;
  napi_threadsafe_function function = nullptr;  // null: closed
  bool scheduled = false;
  std::function<void(Napi::Env)> on_wake;  // JavaScript thread only
};

JsQueue::JsQueue(Napi::Env env, const char* name, std::function<void(Napi::Env)> on_wake)
    : shared_(std::make_shared<Shared>()), env_(env) {
  shared_->on_wake = std::move(on_wake);
  auto* handle = new std::shared_ptr<Shared>(shared_);
  const auto finalize = [](napi_env, void*, void* context) {
    auto* owner = static_cast<std::shared_ptr<Shared>*>(context);
    {
      const std::lock_guard lock((*owner)->mutex);
      (*owner)->function = nullptr;
    }
    delete owner;
  };
  const auto call = [](napi_env raw_env, napi_value, void* context, void*) {
    if (raw_env == nullptr) return;  // the environment is going
    const std::shared_ptr<Shared> shared = *static_cast<std::shared_ptr<Shared>*>(context);
    {
      const std::lock_guard lock(shared->mutex);
      shared->scheduled = false;
      if (shared->function == nullptr) return;
    }
    const Napi::Env js(raw_env);
    try {
      const Napi::HandleScope scope(js);
      shared->on_wake(js);
    } catch (const Napi::Error& error) {
      // What a callback of the user throws is an uncaught exception, as it would be from a timer. While a
      // worker is being terminated there is nobody to throw at, and this call fails quietly.
      napi_fatal_exception(raw_env, error.Value());
    }
  };
  const Napi::String resource = Napi::String::New(env, name);
  const napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, resource, 0, 1, nullptr,
                                                             finalize, handle, call, &shared_->function);
  if (status != napi_ok) {
    delete handle;
    throw Error(ErrorCode::kInternal, "Node-API refused a thread-safe function");
  }
  unref();
}

void JsQueue::wake() {
  const std::lock_guard lock(shared_->mutex);
  if (shared_->function == nullptr || shared_->scheduled) return;
  shared_->scheduled = true;
  if (napi_call_threadsafe_function(shared_->function, nullptr, napi_tsfn_nonblocking) == napi_closing)
    shared_->function = nullptr;
}

void JsQueue::ref() {
  if (shared_->function != nullptr) napi_ref_threadsafe_function(env_, shared_->function);
}

void JsQueue::unref() {
  if (shared_->function != nullptr) napi_unref_threadsafe_function(env_, shared_->function);
}

void JsQueue::close() {
  const std::lock_guard lock(shared_->mutex);
  if (shared_->function == nullptr) return;
  napi_release_threadsafe_function(std::exchange(shared_->function, nullptr), napi_tsfn_abort);
}

}  // namespace maestrale
