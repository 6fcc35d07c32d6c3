// SPDX-License-Identifier: Apache-2.0
// The highest logits of a row as top_logits leaves them, the same on both sides.
#pragma once

namespace maestrale::cuda {

// The default sampling options need 104 at most: topK and the tokens that a penalty may push down.
inline constexpr int kTopLogits = 256;

// Highest first, of equals the lower token. A row of fewer logits has fewer; 0 are there when more than the
// kernel can list might belong to them.
struct TopRecord {
  int tokens[kTopLogits];
  float logits[kTopLogits];
  int count;
  float rest;  // no other logit of the row is higher
};

}  // namespace maestrale::cuda
