// SPDX-License-Identifier: Apache-2.0
// A draw from the highest logits of a row as plain data, which lies in the memory of a GPU as it does here:
// what a sampler (native/sampling) knows of one token before its logits are there. And the rules that host
// and device share, word for word.
#pragma once

#include <cstdint>
#include <optional>

#include "base/portable_math.h"

namespace maestrale {

struct ScoreChange {
  int32_t token;
  float amount;
};

struct DrawRequest {
  // The default options need 64 at most, one for each token of their window.
  static constexpr int32_t kMostChanges = 128;

  uint64_t seed = 0, position = 0;
  float temperature = 0, top_p = 1, min_p = 0, typical_p = 1, repetition_penalty = 1;
  int32_t top_k = 0;
  // In order: n_biases of them are added, then the penalties, for each token once.
  int32_t n_biases = 0, n_changes = 0;
  ScoreChange changes[kMostChanges] = {};
};

// What is asked of a row of logits.
struct RowRequest {
  bool whole = false;                    // all of it, or its highest ones are enough
  std::optional<DrawRequest> draw = {};  // and of these the token, from a device that draws
};

namespace draw_rules {

// Which sequence of random numbers draws use; other users of the seed take other streams.
constexpr uint64_t kTokenStream = 0;
constexpr float kTinyTemperature = 1e-3f;
constexpr double kExpError = 1e-12;  // and more

// What the penalties make of the score of a token that has occurred (Keskar et al. 2019, CTRL, section 4.1).
MAESTRALE_HOST_DEVICE inline float penalised(float score, float repetition_penalty, float amount) {
  return (score < 0 ? product(score, repetition_penalty) : score / repetition_penalty) - amount;
}

// Where the division by the temperature could overflow, the highest score is moved to zero first.
MAESTRALE_HOST_DEVICE inline bool moves_highest(float temperature) { return temperature < kTinyTemperature; }
struct Scale {
  float moved_to_zero, temperature;
  MAESTRALE_HOST_DEVICE float operator()(float score) const { return (score - moved_to_zero) / temperature; }
};

// Whether min-p drops every score up to `outside`, whatever it is: for draws without top-k.
MAESTRALE_HOST_DEVICE inline bool min_p_drops(float min_p, float outside, float highest) {
  return portable_exp(double(outside) - double(highest)) < product(double(min_p), 1 - kExpError);
}

}  // namespace draw_rules
}  // namespace maestrale
