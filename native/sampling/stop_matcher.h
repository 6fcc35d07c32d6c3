// SPDX-License-Identifier: Apache-2.0
// Finds stop strings in a text that arrives in pieces. Text that might be the beginning of a stop string
// is held back, everything else passes at once. The match that is completed first wins, of two that end
// together the longer one: how the text was cut into pieces makes no difference.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace maestrale {

class StopMatcher {
 public:
  static constexpr size_t kMaxStops = 64;
  static constexpr size_t kMaxStopBytes = 1024;

  StopMatcher() = default;
  // Throws Error{kInvalidArg} for too many stop strings, or an empty or too long one.
  explicit StopMatcher(const std::vector<std::string>& stops);

  // Appends what is safe to show to `out`; true when a stop string is complete. The stop string and
  // everything after it are dropped, and so is everything pushed later. Pieces of valid UTF-8 come out
  // as pieces of valid UTF-8.
  bool push(std::string_view text, std::string& out);
  // The text ended without a match: appends what was held back.
  void flush(std::string& out);

  // Index of the stop string that matched, -1 while none has.
  int matched() const { return matched_; }
  size_t held_back() const { return held_.size(); }

 private:
  // Knuth, Morris, Pratt (1977): `state` bytes at the end of the text are the first `state` bytes of the
  // stop string; fallback[i] is the longest border of its first i bytes.
  struct Automaton {
    std::string stop;
    std::vector<uint32_t> fallback;
    size_t state = 0;
  };

  std::vector<Automaton> automata_;
  std::string held_;
  int matched_ = -1;
};

}  // namespace maestrale
