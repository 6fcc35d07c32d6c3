// SPDX-License-Identifier: Apache-2.0
// One token timeline: a request and how far it has got. Everything but the flags belongs to the engine's
// thread once the request is in the queue.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/adapter_table.h"
#include "engine/event.h"
#include "engine/page_table.h"
#include "engine/prompt_lookup.h"
#include "sampling/sampler.h"
#include "sampling/stop_matcher.h"
#include "tokenizer/stream_decoder.h"

namespace maestrale {

using Clock = std::chrono::steady_clock;

// Ids as they are, one text (with BOS as the vocabulary wants it), or segments: ids and raw texts.
using Segment = std::variant<int32_t, std::string>;
using Prompt = std::variant<std::vector<int32_t>, std::string, std::vector<Segment>>;

struct Request {
  enum class Kind {
    kGenerate,
    kLogits,  // values: (n, vocab_size), row i predicts token i + 1
    kScore,   // values: (n - 1), natural log-probability of token i + 1 given the tokens up to i
  };

  uint64_t id = 0;  // chosen by the caller, unique among those that have not ended
  Kind kind = Kind::kGenerate;
  Prompt prompt;
  int64_t max_new_tokens = 256;
  SamplingParams sampling;
  std::string adapter;  // its name; "": the base model alone
  std::vector<std::string> stop;
  double timeout_ms = 0.0;  // the request ends with kAbort when it takes longer; 0: never
  bool ignore_eos = false;  // for measurements
  Speculation speculation;  // guesses change when tokens come, and nothing else
  bool answer = false;      // the text is an answer of its own, whatever the prompt ends with
  std::span<float> values;  // stays valid until the request has ended
};

class Sequence {
 public:
  Sequence(Request r, const StreamDecoder& text_decoder, int32_t vocab_size);

  const Request request;
  const Clock::time_point submitted = Clock::now();

  // Set by any thread.
  std::atomic<bool> cancelled{false};
  std::atomic<bool> paused{false};

  AdapterTable::Use adapter;  // until its last event has been queued

  // Guarded by the engine's mutex: part of the running step and not cancelled.
  bool in_step = false;

  std::vector<int32_t> tokens;  // the prompt and what was generated
  int64_t n_prompt = 0;
  int64_t computed = 0;  // tokens whose keys and values are in the cache
  int64_t cached = 0;    // of them, those that came from earlier requests
  int64_t limit = 0;     // most tokens the timeline may have
  int64_t reserved_pages = 0;
  std::optional<PageTable> pages;  // while running
  bool finished = false;           // its last event has been queued
  // What may follow `tokens`; the rows of the running step behind the first one.
  std::vector<int32_t> guesses;
  int64_t guessed = 0, accepted = 0;  // in all steps so far; accepted ones spared a step

  bool generates() const { return request.kind == Request::Kind::kGenerate; }
  bool has_generated() const { return int64_t(tokens.size()) > n_prompt; }
  int64_t rows_left() const { return int64_t(tokens.size()) - computed; }
  // The sequence is over: cancelled or out of time.
  bool aborted(Clock::time_point now) const;
  Clock::time_point deadline() const;  // time_point::max() when there is none

  void begin_prompt(std::vector<int32_t> prompt, const StreamDecoder& text_decoder);
  void admitted() { admitted_ = Clock::now(); }

  // Fills in `guesses`, no more than the timeline has room for.
  void guess();
  // The step is over: `right` of its guesses were, and they are done with.
  void end_guesses(int64_t right);

  // What it asks of the row of logits that follows `tokens` and the first `n_guesses` guesses.
  RowRequest request_row(size_t n_guesses, bool device_draws);
  // Takes the token that was drawn, or draws it from the logits of the last one, and appends what becomes
  // certain to `event`; says how the sequence ends, if it does. `all` gives the whole row, which is asked for
  // where `logits` does not decide. Throws Error.
  using WholeRow = std::function<std::span<const float>()>;
  std::optional<FinishReason> advance(const LogitRow& logits, const WholeRow& all, const Vocab& vocab,
                                      Event& event);
  // The text that was held back, and the account of the request.
  void conclude(FinishReason reason, Event& event);

 private:
  Sampler::Sample next_token(const LogitRow& logits, const WholeRow& all);

  Sampler sampler_;
  StreamDecoder decoder_;
  StopMatcher stop_;
  std::optional<PromptLookup> lookup_;
  std::optional<Clock::time_point> admitted_, first_token_, last_token_;
};

}  // namespace maestrale
