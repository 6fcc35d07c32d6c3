// SPDX-License-Identifier: Apache-2.0
// Ranges of the sampling options.
#include "sampling/sampling_params.h"

#include <cmath>
#include <string>

#include "base/error.h"

namespace maestrale {
namespace {

// NaN is never in a range. Written so that the message shows what was given.
void check(bool holds, const char* option, const char* range, double value) {
  if (holds) return;
  std::string shown = std::to_string(value);
  if (value == std::floor(value) && std::fabs(value) < 1e15) shown = std::to_string(int64_t(value));
  throw Error(ErrorCode::kInvalidArg, std::string(option) + " must be " + range + ", not " + shown + ".");
}

}  // namespace

void check_sampling_params(const SamplingParams& p, int32_t vocab_size) {
  check(p.temperature >= 0 && p.temperature <= 1000, "temperature", "between 0 and 1000", p.temperature);
  check(p.top_k >= 0, "topK", "0 or more", p.top_k);
  check(p.top_p >= 0 && p.top_p <= 1, "topP", "between 0 and 1", p.top_p);
  check(p.min_p >= 0 && p.min_p <= 1, "minP", "between 0 and 1", p.min_p);
  check(p.typical_p > 0 && p.typical_p <= 1, "typicalP", "above 0 and at most 1", p.typical_p);
  check(p.repetition_penalty >= 0.01f && p.repetition_penalty <= 100, "repetitionPenalty",
        "between 0.01 and 100", p.repetition_penalty);
  check(p.last_n_tokens >= -1, "lastNTokens", "-1 or more", p.last_n_tokens);
  check(std::fabs(p.frequency_penalty) <= 1000, "frequencyPenalty", "between -1000 and 1000",
        p.frequency_penalty);
  check(std::fabs(p.presence_penalty) <= 1000, "presencePenalty", "between -1000 and 1000",
        p.presence_penalty);
  check(p.logprobs >= 0 && p.logprobs <= 20, "logprobs", "between 0 and 20", p.logprobs);
  for (const LogitBias& entry : p.logit_bias) {
    check(entry.token >= 0 && entry.token < vocab_size, "A token id in logitBias", "inside the vocabulary",
          entry.token);
    check(entry.bias <= 1e6f, "A bias in logitBias", "a number up to 1000000, or -Infinity", entry.bias);
  }
}

}  // namespace maestrale
