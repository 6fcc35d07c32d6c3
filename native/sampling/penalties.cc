// SPDX-License-Identifier: Apache-2.0
// Penalties count the window first, so a token is changed once however often it occurred.
#include "sampling/penalties.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace maestrale {

void apply_logit_bias(std::span<const LogitBias> bias, std::span<float> scores) {
  for (const LogitBias& entry : bias) scores[size_t(entry.token)] += entry.bias;
}

void Penalties::apply(const SamplingParams& p, std::span<const int32_t> history, std::span<float> scores) {
  for (const ScoreChange& change : changes(p, history, scores.size())) {
    float& score = scores[size_t(change.token)];
    score = draw_rules::penalised(score, p.repetition_penalty, change.amount);
  }
}

std::span<const ScoreChange> Penalties::changes(const SamplingParams& p, std::span<const int32_t> history,
                                                size_t vocab_size) {
  changes_.clear();
  if (p.repetition_penalty == 1 && p.frequency_penalty == 0 && p.presence_penalty == 0) return {};
  if (p.last_n_tokens >= 0) history = history.last(std::min(history.size(), size_t(p.last_n_tokens)));
  for (const int32_t token : history)
    if (token < 0 || size_t(token) >= vocab_size)
      throw Error(ErrorCode::kInvalidArg, "Token id " + std::to_string(token) +
                                              " is outside the vocabulary of " + std::to_string(vocab_size) +
                                              " tokens.");
  counts_.resize(vocab_size);
  for (const int32_t token : history) ++counts_[size_t(token)];
  for (const int32_t token : history) {
    const uint32_t count = counts_[size_t(token)];
    if (count == 0) continue;
    counts_[size_t(token)] = 0;
    changes_.push_back({token, float(count) * p.frequency_penalty + p.presence_penalty});
  }
  return changes_;
}

}  // namespace maestrale
