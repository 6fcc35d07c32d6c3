// SPDX-License-Identifier: Apache-2.0
// Processors run in binary32 as the reference does; sums and exponentials are binary64.
#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/philox.h"

namespace maestrale {
namespace {

using draw_rules::Scale;

// Below that min-p may leave tokens whose probability is zero as a binary32, which depends on all of them.
constexpr float kLeastMinP = 1e-30f;
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kMinusInfinity = -kInfinity;

void sort_by_id(std::vector<Candidate>& candidates) {
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  if (!std::is_sorted(candidates.begin(), candidates.end(), by_id))
    std::sort(candidates.begin(), candidates.end(), by_id);
}

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

void Sampler::adjust_scores(std::span<const int32_t> history) {
  apply_logit_bias(params_.logit_bias, scores_);
  penalties_.apply(params_, history, scores_);
}

// Leaves the tokens that top-k leaves in candidates_, ordered by id; one of them for temperature 0.
void Sampler::fill_candidates(std::span<const float> logits, std::span<const int32_t> history,
                              uint64_t position) {
  if (logits.size() != vocab_size_)
    throw Error(ErrorCode::kInternal, "The sampler was made for " + std::to_string(vocab_size_) +
                                          " logits and got " + std::to_string(logits.size()) + ".");
  check_logits(logits, position);
  scores_.assign(logits.begin(), logits.end());
  adjust_scores(history);

  const auto best = [&] { return std::max_element(scores_.begin(), scores_.end()); };  // the first of equals
  if (params_.temperature == 0) {
    candidates_.assign(1, {int32_t(best() - scores_.begin()), *best(), 1});
  } else {
    const float highest = draw_rules::moves_highest(params_.temperature) ? *best() : 0;
    const Scale scale{highest, params_.temperature};
    if (highest > kMinusInfinity)
      for (float& score : scores_) score = scale(score);
    select_top_k(scores_, params_.top_k, candidates_);
    sort_by_id(candidates_);
  }
  if (candidates_.empty() || candidates_[0].score == kMinusInfinity)
    throw Error(ErrorCode::kInvalidArg, "logitBias leaves no token that could be drawn.");
  for (const Candidate& candidate : candidates_)
    if (candidate.score == kInfinity) bad_logits(position, "infinite after the penalties");
}

bool Sampler::draws_from_top() const {
  const SamplingParams& p = params_;
  const bool raises =
      p.repetition_penalty < 1 || p.frequency_penalty < 0 || p.presence_penalty < 0 ||
      std::ranges::any_of(p.logit_bias, [](const LogitBias& entry) { return entry.bias > 0; });
  // Without top-k the mass of all tokens counts, but for min-p, which compares with the likeliest one.
  const bool cuts =
      p.temperature == 0 || p.top_k > 0 || (p.min_p >= kLeastMinP && p.top_p >= 1 && p.typical_p >= 1);
  return p.logprobs == 0 && !raises && cuts;
}

std::optional<DrawRequest> Sampler::draw_request(std::span<const int32_t> history, uint64_t position) {
  if (!draws_from_top()) return std::nullopt;
  const std::span<const ScoreChange> penalties = penalties_.changes(params_, history, vocab_size_);
  const size_t n_biases = params_.logit_bias.size(), n_changes = n_biases + penalties.size();
  if (n_changes > size_t(DrawRequest::kMostChanges)) return std::nullopt;
  DrawRequest request{.seed = params_.seed,
                      .position = position,
                      .temperature = params_.temperature,
                      .top_p = params_.top_p,
                      .min_p = params_.min_p,
                      .typical_p = params_.typical_p,
                      .repetition_penalty = params_.repetition_penalty,
                      .top_k = params_.top_k,
                      .n_biases = int32_t(n_biases),
                      .n_changes = int32_t(n_changes)};
  for (size_t i = 0; i < n_biases; ++i)
    request.changes[i] = {params_.logit_bias[i].token, params_.logit_bias[i].bias};
  std::copy(penalties.begin(), penalties.end(), request.changes + n_biases);
  return request;
}

// The same from the highest logits. As no score is raised, no other token's is above `outside`; false where
// one of them might belong to the candidates.
bool Sampler::fill_candidates(const TopLogits& top, std::span<const int32_t> history) {
  scores_.resize(vocab_size_);
  for (size_t i = 0; i < top.tokens.size(); ++i) {
    if (!(top.logits[i] < kInfinity)) return false;  // the error is that of the whole row
    scores_[size_t(top.tokens[i])] = top.logits[i];
  }
  adjust_scores(history);
  candidates_.clear();
  for (const int32_t token : top.tokens)
    if (const float score = scores_[size_t(token)]; score > kMinusInfinity)
      candidates_.push_back({token, score, 0});
  if (candidates_.empty()) return false;

  sort_by_id(candidates_);
  const auto lower = [](const Candidate& a, const Candidate& b) { return a.score < b.score; };
  const Candidate best = *std::max_element(candidates_.begin(), candidates_.end(), lower);
  if (params_.temperature == 0) {
    candidates_.assign(1, best);
    return top.rest < best.score;
  }
  const Scale scale{draw_rules::moves_highest(params_.temperature) ? best.score : 0, params_.temperature};
  const float outside = scale(top.rest), highest = scale(best.score);
  if (!std::isfinite(highest)) return false;  // the error is that of the whole row
  for (Candidate& candidate : candidates_) candidate.score = scale(candidate.score);
  if (params_.top_k == 0) return draw_rules::min_p_drops(params_.min_p, outside, highest);
  if (candidates_.size() < size_t(params_.top_k)) return top.rest == kMinusInfinity;
  keep_top_k(params_.top_k, candidates_);
  sort_by_id(candidates_);
  return outside < std::min_element(candidates_.begin(), candidates_.end(), lower)->score;
}

// Leaves the tokens to draw from in candidates_, ordered by id, and returns the sum of their weights.
double Sampler::narrow_candidates() {
  if (params_.temperature == 0) return 1;
  weigh(candidates_);
  filter_top_p(params_.top_p, candidates_);
  filter_min_p(params_.min_p, candidates_);
  filter_typical(params_.typical_p, candidates_);
  sort_by_id(candidates_);
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  return sum;
}

Sampler::Sample Sampler::draw(double sum, uint64_t position) const {
  // Walk the cumulative weights; rounding can leave a rest that belongs to the last candidate.
  double rest = philox_uniform(params_.seed, position, draw_rules::kTokenStream) * sum;
  size_t chosen = 0;
  while (chosen + 1 < candidates_.size() && rest >= candidates_[chosen].weight)
    rest -= candidates_[chosen++].weight;
  return {candidates_[chosen].token, std::numeric_limits<float>::quiet_NaN(), {}};
}

std::vector<TokenProbability> Sampler::distribution(std::span<const float> logits,
                                                    std::span<const int32_t> history, uint64_t position) {
  fill_candidates(logits, history, position);
  const double sum = narrow_candidates();
  std::vector<TokenProbability> out;
  out.reserve(candidates_.size());
  for (const Candidate& candidate : candidates_)
    out.push_back({candidate.token, float(candidate.weight / sum)});
  return out;
}

Sampler::Sample Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                                uint64_t position) {
  fill_candidates(logits, history, position);
  Sample sample = draw(narrow_candidates(), position);
  if (params_.logprobs > 0) add_logprobs(logits, size_t(params_.logprobs), sample);
  return sample;
}

std::optional<Sampler::Sample> Sampler::sample(const TopLogits& top, std::span<const int32_t> history,
                                               uint64_t position) {
  if (top.tokens.empty() || !draws_from_top() || !fill_candidates(top, history)) return std::nullopt;
  return draw(narrow_candidates(), position);
}

}  // namespace maestrale
