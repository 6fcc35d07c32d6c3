// SPDX-License-Identifier: Apache-2.0
// What the engine reports about a request. A request ends with exactly one event that has `done`,
// `values_ready` or `error`; none follows it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "sampling/sampler.h"

namespace maestrale {

enum class FinishReason { kStop, kLength, kAbort };

struct Done {
  FinishReason reason = FinishReason::kStop;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // prompt tokens whose keys and values an earlier request had left
  int64_t completion_tokens = 0;
  int64_t guessed_tokens = 0;   // computed ahead because they were likely
  int64_t accepted_tokens = 0;  // of them, those that spared a step
  double queue_ms = 0.0;        // from the request to its place in the batch
  double prefill_ms = 0.0;      // from there to the first token
  double ttft_ms = 0.0;         // from the request to the first token; 0 when there is none
  double decode_ms = 0.0;       // from the first token to the last
  uint64_t seed = 0;
};

struct Event {
  uint64_t id = 0;
  std::string text;                       // valid UTF-8; may be empty while something is held back
  std::vector<int32_t> tokens;            // the tokens this event adds
  std::vector<Sampler::Sample> logprobs;  // one per token, when asked for
  std::optional<Done> done;
  bool values_ready = false;  // Request::values has been filled in
  std::optional<Error> error;

  bool last() const { return done.has_value() || values_ready || error.has_value(); }
};

// Receives everything that happened in a step, on the engine's thread or on the one that reads prompts.
// Must neither block nor throw.
using EventSink = std::function<void(std::vector<Event>&&)>;

}  // namespace maestrale
