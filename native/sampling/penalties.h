// SPDX-License-Identifier: Apache-2.0
// What changes single scores before anything is filtered: logit bias, then the penalties for tokens
// that already occurred.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/sampling_params.h"

namespace maestrale {

void apply_logit_bias(std::span<const LogitBias> bias, std::span<float> scores);

// Repetition: once for each distinct token of the last n, s * q below zero, s / q from zero on (Keskar
// et al. 2019, CTRL, section 4.1). Then s -= count * frequency_penalty + presence_penalty.
class Penalties {
 public:
  // `history` is everything before the token to be drawn, oldest first. Throws Error{kInvalidArg} when
  // it holds an id outside `scores`.
  void apply(const SamplingParams& params, std::span<const int32_t> history, std::span<float> scores);

 private:
  std::vector<uint32_t> counts_;  // scratch, all zero between calls
};

}  // namespace maestrale
