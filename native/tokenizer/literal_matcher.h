// SPDX-License-Identifier: Apache-2.0
// Finds the longest of a set of literal strings at a place in a text: user-defined pieces, and
// special tokens when the caller asks for them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace maestrale {

class LiteralMatcher {
 public:
  struct Match {
    int32_t id = -1;  // -1: nothing matches
    size_t length = 0;
  };

  // The bytes of `text` (not empty) must outlive the matcher.
  void add(std::string_view text, int32_t id) {
    ids_.emplace(text, id);
    std::vector<size_t>& lengths = lengths_[uint8_t(text[0])];
    const auto place = std::lower_bound(lengths.begin(), lengths.end(), text.size(), std::greater<>());
    if (place == lengths.end() || *place != text.size()) lengths.insert(place, text.size());
  }

  // Longest literal at the start of `text`.
  Match match(std::string_view text) const {
    if (text.empty()) return {};
    for (const size_t length : lengths_[uint8_t(text[0])]) {
      if (length > text.size()) continue;
      if (const auto found = ids_.find(text.substr(0, length)); found != ids_.end())
        return {found->second, length};
    }
    return {};
  }

 private:
  std::unordered_map<std::string_view, int32_t> ids_;
  std::array<std::vector<size_t>, 256> lengths_;  // by first byte, distinct, longest first
};

}  // namespace maestrale
