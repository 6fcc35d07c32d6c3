// SPDX-License-Identifier: Apache-2.0
// Draws one token from the logits of one position. The order is fixed: logit bias, repetition,
// frequency and presence penalties, then temperature, top-k, top-p, min-p, typical-p, then one draw.
// The result depends on the arguments alone, never on earlier calls or on other requests.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/draw_request.h"
#include "base/top_logits.h"
#include "sampling/filters.h"
#include "sampling/penalties.h"
#include "sampling/sampling_params.h"

namespace maestrale {

struct TokenLogprob {
  int32_t token;
  float logprob;
};

struct TokenProbability {
  int32_t token;
  float probability;
};

// One sequence's sampler; holds scratch, so one thread at a time.
class Sampler {
 public:
  struct Sample {
    int32_t token;
    float logprob;                  // NaN unless params.logprobs > 0
    std::vector<TokenLogprob> top;  // params.logprobs entries, likeliest first
  };

  // Throws Error{kInvalidArg}.
  Sampler(SamplingParams params, int32_t vocab_size);

  // `logits` [vocab_size] of the last position; `history` all tokens so far; `position` the index of
  // the token to be drawn in its sequence, which also selects the random number. Log-probabilities are
  // the model's own: log-softmax of `logits` before anything is applied to them.
  // Throws Error{kModelFormat} when a logit is NaN or +infinity or all are -infinity, and
  // Error{kInvalidArg} when the logit bias leaves no token.
  Sample sample(std::span<const float> logits, std::span<const int32_t> history, uint64_t position);

  // The same token, drawn from the highest logits of the position alone. Nothing where another logit might
  // matter: when the whole row has to be asked.
  std::optional<Sample> sample(const TopLogits& top, std::span<const int32_t> history, uint64_t position);
  // Whether that can succeed with these options: none of them raises a score, none looks at all of them.
  bool draws_from_top() const;
  // For a device that makes this draw itself; nothing where it cannot be asked for. Throws as sample() does.
  std::optional<DrawRequest> draw_request(std::span<const int32_t> history, uint64_t position);

  // What sample() draws from: the tokens that are left, ordered by id, with probabilities that sum to
  // 1. One token for temperature 0.
  std::vector<TokenProbability> distribution(std::span<const float> logits, std::span<const int32_t> history,
                                             uint64_t position);

  const SamplingParams& params() const { return params_; }

 private:
  void adjust_scores(std::span<const int32_t> history);
  void fill_candidates(std::span<const float> logits, std::span<const int32_t> history, uint64_t position);
  bool fill_candidates(const TopLogits& top, std::span<const int32_t> history);
  double narrow_candidates();
  Sample draw(double sum, uint64_t position) const;

  SamplingParams params_;
  size_t vocab_size_;
  Penalties penalties_;
  std::vector<float> scores_;  // of all tokens; after fill_candidates(top) of those in `top`
  std::vector<Candidate> candidates_;
};

}  // namespace maestrale
