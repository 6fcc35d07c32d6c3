// SPDX-License-Identifier: Apache-2.0
#include "engine/sequence.h"

#include <limits>
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

RowRequest Sequence::request_row(size_t n_guesses, bool device_draws) {
  if (!generates() || !sampler_.draws_from_top()) return {.whole = true};
  if (!device_draws) return {};
  const size_t n_tokens = tokens.size();
  tokens.insert(tokens.end(), guesses.begin(), guesses.begin() + std::ptrdiff_t(n_guesses));
  RowRequest row{.draw = sampler_.draw_request(tokens, tokens.size())};
  tokens.resize(n_tokens);
  return row;
}

Sampler::Sample Sequence::next_token(const LogitRow& logits, const WholeRow& all) {
  if (logits.token >= 0) return {logits.token, std::numeric_limits<float>::quiet_NaN(), {}};
  if (const auto from_top = sampler_.sample(logits.top, tokens, tokens.size())) return *from_top;
  return sampler_.sample(all(), tokens, tokens.size());
}

std::optional<FinishReason> Sequence::advance(const LogitRow& logits, const WholeRow& all, const Vocab& vocab,
                                              Event& event) {
  Sampler::Sample sample = next_token(logits, all);
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
