// SPDX-License-Identifier: Apache-2.0
// Look-ups that merging needs: which text is a piece, and which two characters stand side by side in
// any piece (where none do, no merge can ever cross, and the text may be cut).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/vocab.h"

namespace maestrale {

class PieceIndex {
 public:
  // `vocab` must be finished and must outlive the index. Control, unknown and byte pieces are not
  // in it: merging text never produces them.
  explicit PieceIndex(const Vocab& vocab);

  // Id of the piece spelled `text`, -1 when there is none.
  int32_t find(std::string_view text) const;
  // May a merge join text that ends with `left` and text that begins with `right`?
  bool may_join(char32_t left, char32_t right) const;

 private:
  void add_piece(int32_t id);
  void add_pair(char32_t left, char32_t right);

  const std::vector<std::string>* pieces_;
  size_t longest_ = 0;                // bytes
  std::vector<int32_t> id_slots_;     // open addressing by text, -1 = free, at most half full
  std::vector<uint64_t> pair_slots_;  // open addressing by pair, 0 = free, at most half full
  size_t pair_count_ = 0;
};

// The valid character of `length` bytes at the start of `text`.
inline char32_t code_point(std::string_view text, size_t length) {
  if (length == 1) return uint8_t(text[0]);
  char32_t value = uint8_t(text[0]) & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) value = value << 6 | (uint8_t(text[i]) & 0x3f);
  return value;
}

}  // namespace maestrale
