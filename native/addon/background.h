// SPDX-License-Identifier: Apache-2.0
// Work that takes long, on threads of its own (never on libuv's pool, which file access and DNS need),
// and what belongs to one environment (the main thread or a worker).
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <thread>

#include "addon/js_queue.h"
#include "base/error.h"

namespace maestrale {

// One piece of work. Derived classes hold its input and result.
class Job {
 public:
  virtual ~Job() = default;
  // On the job's own thread. What it throws becomes the promise's rejection. Should end soon after
  // `cancelled` is set.
  virtual void work() = 0;
  // On the JavaScript thread, after work() succeeded: the value of the promise.
  virtual Napi::Value result(Napi::Env env) = 0;
  // On the JavaScript thread, some time after report().
  virtual void progress(Napi::Env) {}

  std::atomic<bool> cancelled{false};

 protected:
  // From work(): have progress() called.
  void report() {
    reported_ = true;
    queue_->wake();
  }

 private:
  friend class Background;
  std::thread thread_;
  std::atomic<bool> reported_{false}, finished_{false};
  std::optional<Error> failure_;
  std::optional<Napi::Promise::Deferred> deferred_;
  JsQueue* queue_ = nullptr;
};

// The jobs of one environment. At its end they are cancelled and waited for.
class Background {
 public:
  explicit Background(Napi::Env env);
  ~Background();

  // The process stays alive until the job has ended.
  Napi::Promise start(Napi::Env env, std::shared_ptr<Job> job);

  Napi::FunctionReference model_class, tokenizer_class, stream_decoder_class;
  Napi::FunctionReference float32_array;  // the constructor: it throws where Node-API would abort

 private:
  void on_wake(Napi::Env env);
  void end();

  napi_env env_;
  std::list<std::shared_ptr<Job>> jobs_;
  JsQueue queue_;
};

}  // namespace maestrale
