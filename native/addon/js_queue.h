// SPDX-License-Identifier: Apache-2.0
// Wakes the JavaScript thread from other threads, once however often it is asked before it has woken.
// Safe at any moment of the environment's life: after its end, wake() does nothing.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

namespace maestrale {

class JsQueue {
 public:
  // `on_wake` runs on the JavaScript thread. The queue does not keep the process alive until ref().
  JsQueue(Napi::Env env, const char* name, std::function<void(Napi::Env)> on_wake);
  ~JsQueue() { close(); }
  JsQueue(const JsQueue&) = delete;
  JsQueue& operator=(const JsQueue&) = delete;

  void wake();  // any thread

  // On the JavaScript thread.
  void ref();
  void unref();
  void close();  // nothing is called any more; idempotent

 private:
  struct Shared;
  std::shared_ptr<Shared> shared_;  // with the thread-safe function, whichever lives longer
  Napi::Env env_;
};

}  // namespace maestrale
