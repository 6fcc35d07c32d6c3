// SPDX-License-Identifier: Apache-2.0
// An engine on one of the small reference models, and the requests tests send to it.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "engine/open.h"

namespace maestrale::test {

#ifdef __SANITIZE_THREAD__
inline constexpr std::chrono::seconds kStuckAfter{600};  // a long prompt alone takes a minute
#else
inline constexpr std::chrono::seconds kStuckAfter{60};
#endif

// An engine and everything it has reported.
class Host {
 public:
  struct Outcome {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<float> logprobs;  // of the tokens and of their alternatives
    size_t events = 0;
    std::optional<Event> last;
  };

  explicit Host(OpenOptions options = {}) {
    if (options.path.empty()) options.path = kModel;
    if (options.path[0] != '/') options.path = std::string(test::kVectors) + "/" + options.path;
    if (options.threads == 0) options.threads = 1;
    if (options.device == "auto") options.device = "cpu";  // whatever GPU there is, simulated ones included
    opened_ = open_model(options, {}, [this](std::vector<Event>&& events) {
      const std::lock_guard lock(mutex_);
      for (Event& event : events) {
        Outcome& outcome = outcomes_[event.id];
        if (outcome.last) ++late_;
        outcome.text += event.text;
        outcome.tokens.insert(outcome.tokens.end(), event.tokens.begin(), event.tokens.end());
        for (const Sampler::Sample& sample : event.logprobs) {
          outcome.logprobs.push_back(sample.logprob);
          for (const TokenLogprob& other : sample.top) outcome.logprobs.push_back(other.logprob);
        }
        ++outcome.events;
        ++events_;
        most_pages_ = std::max(most_pages_, opened_.engine ? opened_.engine->stats().pages_used : 0);
        if (event.last()) {
          outcome.last = std::move(event);
        }
      }
      changed_.notify_all();
    });
  }

  static constexpr const char* kModel = "models/hd128-q4_0.gguf";

  Engine& engine() { return *opened_.engine; }
  const OpenedModel& opened() const { return opened_; }
  int32_t vocab_size() const { return opened_.config.vocab_size; }
  int64_t most_pages() const { return most_pages_; }

  // Until `ready`; an engine that reports nothing at all for a minute is stuck, however slow sanitizers make
  // it.
  template <class Ready>
  Outcome wait(uint64_t id, Ready ready) {
    std::unique_lock lock(mutex_);
    while (!ready(outcomes_[id])) {
      const size_t seen = events_;
      if (!changed_.wait_for(lock, kStuckAfter, [&] { return events_ > seen; }))
        throw std::runtime_error("request " + std::to_string(id) + " does not move");
    }
    if (late_ > 0) throw std::runtime_error("something was reported after the end of a request");
    return outcomes_[id];
  }
  Outcome wait(uint64_t id) {
    return wait(id, [](const Outcome& outcome) { return outcome.last.has_value(); });
  }
  Outcome run(Request request) {
    const uint64_t id = request.id;
    engine().submit(std::move(request));
    return wait(id);
  }
  // After everything has ended, no page is held.
  void check_idle() {
    for (int i = 0; i < 2000 && (engine().stats().running > 0 || engine().stats().pages_used > 0); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK_EQ(engine().stats().running, 0);
    CHECK_EQ(engine().stats().queued, 0);
    CHECK_EQ(engine().stats().pages_used, 0);
    const std::lock_guard lock(mutex_);
    CHECK_EQ(late_, 0);
  }
  // The engine reports to the end of its life, so the pointer is taken from the sink's sight first.
  void destroy() {
    std::unique_ptr<Engine> engine;
    {
      const std::lock_guard lock(mutex_);
      engine = std::move(opened_.engine);
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, Outcome> outcomes_;
  int64_t most_pages_ = 0;
  size_t events_ = 0;  // of all requests
  int late_ = 0;
  OpenedModel opened_;
};

inline std::vector<int32_t> some_tokens(size_t n, int32_t seed = 0) {
  std::vector<int32_t> tokens(n);
  uint32_t state = uint32_t(seed) * 2654435761u + 12345u;
  for (int32_t& token : tokens) {
    state = state * 1664525u + 1013904223u;
    token = int32_t(state >> 16) % 500 + 3;
  }
  return tokens;
}

inline Request request(uint64_t id, std::vector<int32_t> prompt, int64_t n_new = 20) {
  Request r;
  r.id = id;
  r.prompt = std::move(prompt);
  r.max_new_tokens = n_new;
  r.ignore_eos = true;
  r.sampling.seed = 7;
  return r;
}

inline OpenOptions with_batch(int32_t max_batch_tokens) {
  OpenOptions options;
  options.max_batch_tokens = max_batch_tokens;
  return options;
}

}  // namespace maestrale::test
