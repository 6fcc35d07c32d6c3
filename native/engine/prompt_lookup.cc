// SPDX-License-Identifier: Apache-2.0
#include "engine/prompt_lookup.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr int32_t kMostSilence = 6;  // 2^6 tokens without a guess after that many misses in a row

void check_range(const char* name, int32_t value, int32_t low, int32_t high) {
  if (value < low || value > high)
    throw Error(ErrorCode::kInvalidArg, std::string(name) + " must be from " + std::to_string(low) + " to " +
                                            std::to_string(high) + ", not " + std::to_string(value));
}

// The key of an n-gram from that of its last n - 1 tokens and the token before them.
uint64_t longer_key(uint64_t key, int32_t token) {
  // The finaliser of SplitMix64 (Steele 2014).
  uint64_t x = key + 0x9e3779b97f4a7c15u + uint64_t(uint32_t(token));
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

PromptLookup::PromptLookup(Speculation options) : options_(options), length_(options.max_tokens) {
  check_range("the number of guessed tokens", options.max_tokens, 1, kMostTokens);
  check_range("the shortest n-gram", options.min_ngram, 1, kLongestNgram);
}

void PromptLookup::index(std::span<const int32_t> tokens) {
  for (; indexed_ < int64_t(tokens.size()); ++indexed_) {
    uint64_t key = 0;
    for (int32_t n = 1; n <= std::min<int64_t>(kLongestNgram, indexed_); ++n) {
      key = longer_key(key, tokens[size_t(indexed_ - n)]);
      if (n >= options_.min_ngram) behind_[key] = indexed_;
    }
  }
}

std::vector<int32_t> PromptLookup::guess(std::span<const int32_t> tokens, int64_t most) {
  index(tokens);
  const int64_t size = int64_t(tokens.size());
  most = std::min(most, length_);
  if (most <= 0 || size < silent_to_) return {};
  int64_t found = 0;  // the longest n-gram wins
  uint64_t key = 0;
  for (int32_t n = 1; n <= std::min<int64_t>(kLongestNgram, size); ++n) {
    key = longer_key(key, tokens[size_t(size - n)]);
    const auto entry = n >= options_.min_ngram ? behind_.find(key) : behind_.end();
    if (entry == behind_.end() || entry->second < n) continue;
    if (std::equal(tokens.end() - n, tokens.end(), tokens.begin() + (entry->second - n)))
      found = entry->second;
  }
  std::vector<int32_t> guesses;
  if (found == 0) return guesses;
  // Where the earlier occurrence runs into the end of the text, the text repeats itself and so do guesses.
  for (int64_t i = 0; i < most; ++i)
    guesses.push_back(found + i < size ? tokens[size_t(found + i)] : guesses[size_t(found + i - size)]);
  return guesses;
}

void PromptLookup::observe(int64_t guessed, int64_t accepted, int64_t n_tokens) {
  if (accepted == guessed)
    length_ = std::min<int64_t>(options_.max_tokens, 2 * std::max(length_, guessed));
  else
    length_ = accepted + 1;
  misses_ = accepted > 0 ? 0 : std::min(misses_ + 1, kMostSilence);
  // One wrong guess is no reason to stop; after several the next attempt waits.
  if (misses_ > 1) silent_to_ = n_tokens + (int64_t(1) << misses_);
}

}  // namespace maestrale
