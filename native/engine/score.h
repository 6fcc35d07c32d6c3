// SPDX-License-Identifier: Apache-2.0
// How likely the model found a token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"

namespace maestrale {

// Natural logarithm of softmax(logits)[token], accumulated in double. Throws Error{kInternal} when a
// logit is NaN.
inline double log_probability(std::span<const float> logits, int32_t token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(double(logit) - largest);
  const double result = double(logits[size_t(token)]) - largest - std::log(sum);
  if (std::isnan(result))
    throw Error(ErrorCode::kInternal, "the model computed NaN where token " + std::to_string(token) +
                                          " was scored; its weights may be damaged");
  return result;
}

}  // namespace maestrale
