// SPDX-License-Identifier: Apache-2.0
// The filters that cut a distribution down, with the semantics of transformers' logits processors.
// None of them sorts the whole vocabulary. Candidates may come and go in any order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace maestrale {

struct Candidate {
  int32_t token;
  float score;    // logit after bias, penalties and temperature
  double weight;  // exp(score - highest score), set by weigh(); not normalised
};

// Candidates of the `k` highest scores; everything that ties with the last of them is kept, and
// scores of -infinity are dropped. k = 0 keeps all.
void select_top_k(std::span<const float> scores, int32_t k, std::vector<Candidate>& out);

// The same of candidates, whose scores are finite.
void keep_top_k(int32_t k, std::vector<Candidate>& candidates);

// Sets the weights, drops candidates whose probability is zero as a binary32, returns the sum.
double weigh(std::vector<Candidate>& candidates);

// Nucleus sampling (Holtzman et al. 2020): the smallest set of the likeliest tokens whose mass is p or
// more. Of equals at the edge, the higher ids stay. At least one candidate stays.
void filter_top_p(double p, std::vector<Candidate>& candidates);
// Drops what is less likely than p times the likeliest (Nguyen et al. 2024).
void filter_min_p(double p, std::vector<Candidate>& candidates);
// Locally typical sampling (Meister et al. 2023): the smallest set, closest to the entropy first, whose
// mass is p or more; what ties with the last of them is kept.
void filter_typical(double p, std::vector<Candidate>& candidates);

}  // namespace maestrale
