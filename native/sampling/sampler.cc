// SPDX-License-Identifier: Apache-2.0
// Processors run in binary32 as the reference does; sums and exponentials are binary64.
#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "sampling/philox.h"

namespace maestrale {
namespace {

// Which sequence of random numbers a draw uses; other users of the seed take other streams.
constexpr uint64_t kTokenStream = 0;
constexpr float kTinyTemperature = 1e-3f;

[[noreturn]] void bad_logits(uint64_t position, const std::string& what) {
  throw Error(ErrorCode::kModelFormat, "The logits of position " + std::to_string(position) + " are " + what +
                                           "; the weights are damaged or overflow.");
}

void check_logits(std::span<const float> logits, uint64_t position) {
  // NaN fails every comparison, so one branch-free pass finds both kinds.
  bool sound = true, any = false;
  for (const float logit : logits) {
    sound &= logit <= std::numeric_limits<float>::max();
    any |= logit >= std::numeric_limits<float>::lowest();
  }
  if (sound && any) return;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) bad_logits(position, "NaN (token " + std::to_string(i) + " first)");
    if (logits[i] > std::numeric_limits<float>::max())
      bad_logits(position, "infinite (token " + std::to_string(i) + " first)");
  }
  bad_logits(position, "all -infinity");
}

// Adds the log-probability of sample.token and the likeliest `count` tokens to `sample`.
void add_logprobs(std::span<const float> logits, size_t count, Sampler::Sample& sample) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double(logit) - double(highest));
  const double log_sum = double(highest) + std::log(sum);
  const auto logprob = [&](float logit) { return float(double(logit) - log_sum); };
  sample.logprob = logprob(logits[size_t(sample.token)]);

  std::vector<Candidate> best;
  select_top_k(logits, int32_t(count), best);
  std::sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.token < b.token;
  });
  if (best.size() > count) best.resize(count);
  for (const Candidate& candidate : best) sample.top.push_back({candidate.token, logprob(candidate.score)});
}

}  // namespace

Sampler::Sampler(SamplingParams params, int32_t vocab_size)
    : params_(std::move(params)), vocab_size_(size_t(vocab_size)) {
  check_sampling_params(params_, vocab_size);
}

// Leaves the tokens to draw from in candidates_, ordered by id, and returns the sum of their weights.
double Sampler::fill_candidates(std::span<const float> logits, std::span<const int32_t> history,
                                uint64_t position) {
  if (logits.size() != vocab_size_)
    throw Error(ErrorCode::kInternal, "The sampler was made for " + std::to_string(vocab_size_) +
                                          " logits and got " + std::to_string(logits.size()) + ".");
  check_logits(logits, position);
  scores_.assign(logits.begin(), logits.end());
  apply_logit_bias(params_.logit_bias, scores_);
  penalties_.apply(params_, history, scores_);

  const float infinity = std::numeric_limits<float>::infinity();
  if (params_.temperature == 0) {
    const auto best = std::max_element(scores_.begin(), scores_.end());  // the first of equals
    candidates_.assign(1, {int32_t(best - scores_.begin()), *best, 1});
  } else {
    // Where the division could overflow, the highest score is moved to zero first.
    const bool tiny = params_.temperature < kTinyTemperature;
    const float highest = tiny ? *std::max_element(scores_.begin(), scores_.end()) : 0;
    if (highest > -infinity)
      for (float& score : scores_) score = (score - highest) / params_.temperature;
    select_top_k(scores_, params_.top_k, candidates_);
  }
  if (candidates_.empty() || candidates_[0].score == -infinity)
    throw Error(ErrorCode::kInvalidArg, "logitBias leaves no token that could be drawn.");
  for (const Candidate& candidate : candidates_)
    if (candidate.score == infinity) bad_logits(position, "infinite after the penalties");
  if (params_.temperature == 0) return 1;

  weigh(candidates_);
  filter_top_p(params_.top_p, candidates_);
  filter_min_p(params_.min_p, candidates_);
  filter_typical(params_.typical_p, candidates_);
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  if (!std::is_sorted(candidates_.begin(), candidates_.end(), by_id))
    std::sort(candidates_.begin(), candidates_.end(), by_id);
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  return sum;
}

std::vector<TokenProbability> Sampler::distribution(std::span<const float> logits,
                                                    std::span<const int32_t> history, uint64_t position) {
  const double sum = fill_candidates(logits, history, position);
  std::vector<TokenProbability> out;
  out.reserve(candidates_.size());
  for (const Candidate& candidate : candidates_)
    out.push_back({candidate.token, float(candidate.weight / sum)});
  return out;
}

Sampler::Sample Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                                uint64_t position) {
  const double sum = fill_candidates(logits, history, position);
  // Walk the cumulative weights; rounding can leave a rest that belongs to the last candidate.
  double rest = philox_uniform(params_.seed, position, kTokenStream) * sum;
  size_t chosen = 0;
  while (chosen + 1 < candidates_.size() && rest >= candidates_[chosen].weight)
    rest -= candidates_[chosen++].weight;

  Sample sample{candidates_[chosen].token, std::numeric_limits<float>::quiet_NaN(), {}};
  if (params_.logprobs > 0) add_logprobs(logits, size_t(params_.logprobs), sample);
  return sample;
}

}  // namespace maestrale
