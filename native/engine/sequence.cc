// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence.h"

#include <utility>

namespace maestrale {
namespace {

double ms_between(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::milli>(end - begin).count();
}

}  // namespace

Sequence::Sequence(Request r, const StreamDecoder& text_decoder, int32_t vocab_size)
    : request(std::move(r)),
      sampler_(request.sampling, vocab_size),
      decoder_(text_decoder),
      stop_(request.stop) {
  if (request.speculation.max_tokens > 0) lookup_.emplace(request.speculation);
}

Clock::time_point Sequence::deadline() const {
  // A year is as good as never and keeps the arithmetic within range.
  constexpr double kYearMs = 365.0 * 24 * 3600 * 1000;
  if (request.timeout_ms <= 0.0 || request.timeout_ms > kYearMs) return Clock::time_point::max();
  return submitted + std::chrono::microseconds(int64_t(request.timeout_ms * 1000.0));
}

bool Sequence::aborted(Clock::time_point now) const {
  return cancelled.load(std::memory_order_relaxed) || now >= deadline();
}

void Sequence::begin_prompt(std::vector<int32_t> prompt, const StreamDecoder& text_decoder) {
  tokens = std::move(prompt);
  n_prompt = int64_t(tokens.size());
  decoder_ = text_decoder;
}

void Sequence::guess() {
  guesses.clear();
  // The step draws one token more than it guesses, and the last one drawn has no row.
  if (lookup_) guesses = lookup_->guess(tokens, limit - int64_t(tokens.size()) - 1);
}

void Sequence::end_guesses(int64_t right) {
  if (!guesses.empty()) lookup_->observe(int64_t(guesses.size()), right, int64_t(tokens.size()));
  guesses.clear();
}

std::optional<FinishReason> Sequence::advance(const TopLogits& top, const WholeRow& all, const Vocab& vocab,
                                              Event& event) {
  std::optional<Sampler::Sample> from_top = sampler_.sample(top, tokens, tokens.size());
  Sampler::Sample sample = from_top ? std::move(*from_top) : sampler_.sample(all(), tokens, tokens.size());
  const int32_t token = sample.token;
  last_token_ = Clock::now();
  if (!first_token_) first_token_ = last_token_;
  if (vocab.ends_text(token) && !request.ignore_eos) return FinishReason::kStop;
  tokens.push_back(token);
  event.tokens.push_back(token);
  if (request.sampling.logprobs > 0) event.logprobs.push_back(std::move(sample));
  std::string text;
  // An output matrix may have more rows than the vocabulary has pieces; those spell nothing.
  if (token < vocab.size()) decoder_.push(token, text);
  if (stop_.push(text, event.text)) return FinishReason::kStop;
  if (int64_t(tokens.size()) >= limit) return FinishReason::kLength;
  return std::nullopt;
}

void Sequence::conclude(FinishReason reason, Event& event) {
  if (stop_.matched() < 0) {
    std::string text;
    decoder_.flush(text);
    // A broken character at the very end may complete a stop string.
    if (stop_.push(text, event.text))
      reason = reason == FinishReason::kAbort ? reason : FinishReason::kStop;
    else
      stop_.flush(event.text);
  }
  Done done;
  done.reason = reason;
  done.prompt_tokens = n_prompt;
  done.cached_tokens = cached;
  // Before its turn has come a request has no timeline yet, and limit is 0.
  done.completion_tokens = limit == 0 ? 0 : int64_t(tokens.size()) - n_prompt;
  done.guessed_tokens = guessed;
  done.accepted_tokens = accepted;
  const Clock::time_point now = Clock::now();
  done.queue_ms = ms_between(submitted, admitted_.value_or(now));
  if (admitted_) done.prefill_ms = ms_between(*admitted_, first_token_.value_or(now));
  if (first_token_) {
    done.ttft_ms = ms_between(submitted, *first_token_);
    done.decode_ms = ms_between(*first_token_, *last_token_);
  }
  done.seed = request.sampling.seed;
  event.done = done;
}

}  // namespace maestrale
