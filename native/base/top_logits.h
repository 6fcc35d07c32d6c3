// SPDX-License-Identifier: Apache-2.0
// What a device may hand over of a row of logits instead of all: the highest ones, which are enough for most
// draws, or the token that it has drawn from them itself.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace maestrale {

struct TopLogits {
  std::span<const int32_t> tokens;  // in any order, each once
  std::span<const float> logits;    // of these tokens
  // No logit of another token is higher; -infinity when there are no others.
  float rest = -std::numeric_limits<float>::infinity();
};

// A row of logits as far as the host has it.
struct LogitRow {
  std::span<const float> all;  // (vocab_size), or empty: then only
  TopLogits top;               // or, where a draw was asked for,
  int32_t token = -1;          // which is -1 where the highest ones cannot tell
};

}  // namespace maestrale
