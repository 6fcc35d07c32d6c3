// SPDX-License-Identifier: Apache-2.0
// Guesses the tokens that come next in a text: what followed the last few tokens when they occurred
// before (prompt lookup, Saxena 2023). Summaries, corrections and JSON repeat much of what they were
// given. A guess decides how many tokens a step may yield and never which.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace maestrale {

struct Speculation {
  int32_t max_tokens = 0;  // guessed tokens in a step; 0: none at all
  int32_t min_ngram = 2;   // last tokens that must have occurred before in the same order
};

class PromptLookup {
 public:
  static constexpr int32_t kMostTokens = 15;  // Speculation::max_tokens
  static constexpr int32_t kLongestNgram = 4;

  // Throws Error{kInvalidArg} when a number is out of range.
  explicit PromptLookup(Speculation options);

  // At most `most` tokens that may follow `tokens`, which only grows from call to call; none when nothing
  // like its end has been seen, or for a while when guesses were wrong of late. Amortised O(1) a token.
  std::vector<int32_t> guess(std::span<const int32_t> tokens, int64_t most);

  // Of `guessed` > 0 tokens the first `accepted` were right; the text now has `n_tokens`. Sets how much is
  // guessed next.
  void observe(int64_t guessed, int64_t accepted, int64_t n_tokens);

 private:
  void index(std::span<const int32_t> tokens);

  Speculation options_;
  // By n-gram, the position behind its latest occurrence that has a successor. Different n-grams may share
  // a key, so whoever finds a position compares the tokens before it.
  std::unordered_map<uint64_t, int64_t> behind_;
  int64_t indexed_ = 1;    // positions below this one are in behind_
  int64_t length_;         // tokens guessed next
  int64_t silent_to_ = 0;  // no guess while the text is shorter
  int32_t misses_ = 0;     // guesses in a row of which nothing was right
};

}  // namespace maestrale
