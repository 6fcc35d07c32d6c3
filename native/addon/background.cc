// SPDX-License-Identifier: Apache-2.0
#include "addon/background.h"

#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "addon/convert.h"

namespace maestrale {

Background::Background(Napi::Env env)
    : env_(env), queue_(env, "maestrale background", [this](Napi::Env js) { on_wake(js); }) {
  float32_array = Napi::Persistent(env.Global().Get("Float32Array").As<Napi::Function>());
  // Hooks run in reverse order: this one before the queue's own.
  napi_add_env_cleanup_hook(
      env_, [](void* self) { static_cast<Background*>(self)->end(); }, this);
}

Background::~Background() { end(); }

Napi::Promise Background::start(Napi::Env env, std::shared_ptr<Job> job) {
  job->deferred_.emplace(env);
  const Napi::Promise promise = job->deferred_->Promise();
  job->queue_ = &queue_;
  jobs_.push_back(job);
  queue_.ref();
  Job* raw = job.get();
  try {
    raw->thread_ = std::thread([raw] {
      try {
        raw->work();
      } catch (const Error& error) {
        raw->failure_ = error;
      } catch (const std::bad_alloc&) {
        raw->failure_.emplace(ErrorCode::kOutOfMemory, "no memory");
      } catch (const std::exception& error) {
        raw->failure_.emplace(ErrorCode::kInternal, error.what());
      }
      raw->finished_ = true;
      raw->queue_->wake();
    });
  } catch (const std::exception&) {
    raw->failure_.emplace(ErrorCode::kOutOfMemory, "the system refused a thread");
    raw->finished_ = true;
    queue_.wake();
  }
  return promise;
}

void Background::on_wake(Napi::Env env) {
  std::vector<std::shared_ptr<Job>> finished;
  for (auto at = jobs_.begin(); at != jobs_.end();) {
    const std::shared_ptr<Job> job = *at;
    const bool is_finished = job->finished_;
    if (job->reported_.exchange(false) && !job->cancelled) job->progress(env);
    at = is_finished ? jobs_.erase(at) : std::next(at);
    if (is_finished) finished.push_back(job);
  }
  if (!finished.empty() && jobs_.empty()) queue_.unref();
  for (const std::shared_ptr<Job>& job : finished) {
    if (job->thread_.joinable()) job->thread_.join();
    try {
      if (!job->failure_) {
        job->deferred_->Resolve(job->result(env));
        continue;
      }
    } catch (const Error& error) {
      job->failure_ = error;
    } catch (const Napi::Error& error) {
      job->deferred_->Reject(error.Value());
      continue;
    }
    job->deferred_->Reject(to_js(env, *job->failure_).Value());
  }
}

// Also while the environment is torn down: no JavaScript runs any more.
void Background::end() {
  for (const std::shared_ptr<Job>& job : jobs_) job->cancelled = true;
  for (const std::shared_ptr<Job>& job : jobs_)
    if (job->thread_.joinable()) job->thread_.join();
  jobs_.clear();
}

}  // namespace maestrale
