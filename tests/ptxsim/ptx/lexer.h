// SPDX-License-Identifier: Apache-2.0
// Splits PTX text into words, strings and single punctuation marks. A word keeps its dots and '::'
// ("ld.global.L2::128B", "%tid.x", ".reg", "0f3F800000").
#pragma once

#include <string_view>
#include <vector>

namespace maestrale::ptxsim {

struct Token {
  enum Kind : unsigned char { kWord, kString, kMark, kEnd };
  Kind kind;
  std::string_view text;
  int line;
};

// The tokens of `text`, which must outlive them; the last is kEnd. Throws PtxError.
std::vector<Token> tokenize(std::string_view text);

}  // namespace maestrale::ptxsim
