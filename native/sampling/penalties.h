// SPDX-License-Identifier: Apache-2.0
// What changes single scores before anything is filtered: logit bias, then the penalties for tokens
// that already occurred.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/draw_request.h"
#include "sampling/sampling_params.h"

namespace maestrale {

void apply_logit_bias(std::span<const LogitBias> bias, std::span<float> scores);

// Repetition: once for each distinct token of the last n, s * q below zero, s / q from zero on. Then
// s -= count * frequency_penalty + presence_penalty.
class Penalties {
 public:
  // `history` is everything before the token to be drawn, oldest first. Throws Error{kInvalidArg} when
  // it holds an id outside the vocabulary, here that of `scores`.
  void apply(const SamplingParams& params, std::span<const int32_t> history, std::span<float> scores);
  // The distinct tokens that they change, with what is subtracted; valid until the next call.
  std::span<const ScoreChange> changes(const SamplingParams& params, std::span<const int32_t> history,
                                       size_t vocab_size);

 private:
  std::vector<uint32_t> counts_;  // scratch, all zero between calls
  std::vector<ScoreChange> changes_;
};

}  // namespace maestrale
