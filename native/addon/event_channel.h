// SPDX-License-Identifier: Apache-2.0
// Carries the events of one engine to the JavaScript thread: one wake-up for everything that has
// happened since the last one, whichever requests it belongs to.
#pragma once

#include <napi.h>

#include <functional>
#include <iterator>
#include <mutex>
#include <utility>
#include <vector>

#include "addon/js_queue.h"
#include "engine/event.h"

namespace maestrale {

class EventChannel {
 public:
  explicit EventChannel(Napi::Env env)
      : queue_(env, "maestrale events", [this](Napi::Env js) { flush(js); }) {}

  // Any thread.
  void post(std::vector<Event>&& events) {
    {
      const std::lock_guard lock(mutex_);
      if (pending_.empty())
        pending_ = std::move(events);
      else
        pending_.insert(pending_.end(), std::make_move_iterator(events.begin()),
                        std::make_move_iterator(events.end()));
    }
    queue_.wake();
  }

  // On the JavaScript thread: hands what is pending to `deliver`.
  void flush(Napi::Env env) {
    std::vector<Event> events;
    {
      const std::lock_guard lock(mutex_);
      events.swap(pending_);
    }
    if (!events.empty() && deliver) deliver(env, events);
  }

  std::function<void(Napi::Env, std::vector<Event>&)> deliver;  // JavaScript thread only
  JsQueue& queue() { return queue_; }

 private:
  std::mutex mutex_;
  std::vector<Event> pending_;
  JsQueue queue_;
};

}  // namespace maestrale
