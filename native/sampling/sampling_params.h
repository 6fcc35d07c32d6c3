// SPDX-License-Identifier: Apache-2.0
// The sampling options of one request. Every default is neutral: a fresh SamplingParams draws from the
// model's own distribution.
#pragma once

#include <cstdint>
#include <vector>

namespace maestrale {

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // -infinity bans the token
};

struct SamplingParams {
  float temperature = 1;         // >= 0; 0 takes the most likely token
  int32_t top_k = 0;             // >= 0; 0 is off
  float top_p = 1;               // [0, 1]; 1 is off, 0 keeps one token
  float min_p = 0;               // [0, 1]; 0 is off
  float typical_p = 1;           // (0, 1]; 1 is off
  float repetition_penalty = 1;  // 0.01 to 100; 1 is off
  int32_t last_n_tokens = -1;    // how far back penalties look: -1 everything, 0 nothing
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::vector<LogitBias> logit_bias = {};
  uint64_t seed = 0;
  int32_t logprobs = 0;  // 0..20 most likely tokens to report with every token; 0 reports nothing
};

// Throws Error{kInvalidArg} that names the option as the public API spells it.
void check_sampling_params(const SamplingParams& params, int32_t vocab_size);

}  // namespace maestrale
