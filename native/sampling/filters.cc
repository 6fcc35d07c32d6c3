// SPDX-License-Identifier: Apache-2.0
// Selection works on growing prefixes or against a running threshold: real distributions put their
// mass on few tokens, and those few are all that is ever sorted.
#include "sampling/filters.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/portable_math.h"

namespace maestrale {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

double sum_of_weights(const std::vector<Candidate>& candidates) {
  double sum = 0;
  for (const Candidate& candidate : candidates) sum += candidate.weight;
  return sum;
}

// The shortest prefix of `items` in the order `before` whose mass reaches `target`, at least one item.
// Afterwards items[0, result) hold it, sorted.
template <class Item, class Before, class Mass>
size_t prefix_of_mass(std::vector<Item>& items, double target, Before before, Mass mass) {
  double sum = 0;
  size_t done = 0;
  for (size_t block = 64; done < items.size(); block *= 4) {
    const size_t end = std::min(items.size(), done + block);
    const auto first = items.begin() + std::ptrdiff_t(done), last = items.begin() + std::ptrdiff_t(end);
    if (end < items.size()) std::nth_element(first, last, items.end(), before);
    std::sort(first, last, before);
    for (; done < end; ++done) {
      sum += mass(items[done]);
      if (sum >= target) return done + 1;
    }
  }
  return items.size();
}

// Drops what is below the k-th highest score, of more than k; says which score that is.
float keep_highest(size_t k, std::vector<Candidate>& candidates) {
  const auto higher = [](const Candidate& a, const Candidate& b) { return a.score > b.score; };
  std::nth_element(candidates.begin(), candidates.begin() + std::ptrdiff_t(k - 1), candidates.end(), higher);
  const float threshold = candidates[k - 1].score;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.score < threshold; });
  return threshold;
}

}  // namespace

void select_top_k(std::span<const float> scores, int32_t k, std::vector<Candidate>& out) {
  out.clear();
  if (k == 0 || size_t(k) >= scores.size()) {
    for (size_t i = 0; i < scores.size(); ++i)
      if (scores[i] > kMinusInfinity) out.push_back({int32_t(i), scores[i], 0});
    return;
  }
  // `threshold` is the k-th highest score seen so far, or lower: nothing below it can be selected.
  float threshold = std::numeric_limits<float>::lowest();
  size_t limit = 2 * size_t(k) + 64;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] >= threshold)) continue;
    out.push_back({int32_t(i), scores[i], 0});
    if (out.size() < limit) continue;
    threshold = keep_highest(size_t(k), out);
    limit = std::max(limit, 2 * out.size());  // many ties: they all stay
  }
  keep_top_k(k, out);
}

void keep_top_k(int32_t k, std::vector<Candidate>& candidates) {
  if (k > 0 && size_t(k) < candidates.size()) keep_highest(size_t(k), candidates);
}

double weigh(std::vector<Candidate>& candidates) {
  float highest = kMinusInfinity;
  for (const Candidate& candidate : candidates) highest = std::max(highest, candidate.score);
  for (Candidate& candidate : candidates)
    candidate.weight = portable_exp(double(candidate.score) - double(highest));
  const double sum = sum_of_weights(candidates);
  std::erase_if(candidates, [&](const Candidate& candidate) { return float(candidate.weight / sum) == 0; });
  return sum;
}

void filter_top_p(double p, std::vector<Candidate>& candidates) {
  if (p >= 1) return;
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.token > b.token;
  };
  candidates.resize(prefix_of_mass(candidates, p * sum_of_weights(candidates), likelier,
                                   [](const Candidate& candidate) { return candidate.weight; }));
}

void filter_min_p(double p, std::vector<Candidate>& candidates) {
  double highest = 0;
  for (const Candidate& candidate : candidates) highest = std::max(highest, candidate.weight);
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < p * highest; });
}

void filter_typical(double p, std::vector<Candidate>& candidates) {
  if (p >= 1) return;
  struct Surprise {
    double distance;  // |-log probability - entropy|
    Candidate candidate;
  };
  const double sum = sum_of_weights(candidates);
  double entropy = 0;
  for (const Candidate& candidate : candidates) {
    const double probability = candidate.weight / sum;
    entropy -= probability * portable_log(probability);
  }
  std::vector<Surprise> items;
  items.reserve(candidates.size());
  for (const Candidate& candidate : candidates)
    items.push_back({std::fabs(-portable_log(candidate.weight / sum) - entropy), candidate});
  const auto closer = [](const Surprise& a, const Surprise& b) {
    return a.distance != b.distance ? a.distance < b.distance : a.candidate.token < b.candidate.token;
  };
  const size_t kept =
      prefix_of_mass(items, p * sum, closer, [](const Surprise& item) { return item.candidate.weight; });
  const double edge = items[kept - 1].distance;
  candidates.clear();
  for (const Surprise& item : items)
    if (item.distance <= edge) candidates.push_back(item.candidate);
}

}  // namespace maestrale
