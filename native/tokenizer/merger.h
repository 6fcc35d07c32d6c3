// SPDX-License-Identifier: Apache-2.0
// The merge loop of SentencePiece BPE: of all adjacent pairs that form a piece, always join the one
// with the highest score, the leftmost on ties, until none is left. O(n log n).
#pragma once

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/piece_index.h"
#include "tokenizer/vocab.h"

namespace maestrale {

// Scratch for one encode call; not shared between threads.
class Merger {
 public:
  // Both must outlive the merger.
  Merger(const Vocab& vocab, const PieceIndex& index);

  // Appends the ids of `text`: valid UTF-8, spaces already U+2581, shorter than 2 GiB.
  void merge(std::string_view text, std::vector<int32_t>& out);

 private:
  struct Symbol {
    uint32_t start, size;  // bytes; size 0: joined into its left neighbour
    int32_t previous, next;
  };
  struct Pair {
    float score;
    int32_t left;   // symbol
    uint32_t size;  // bytes of both when it was found; another size now means it is out of date
  };
  // Heap order: the better pair is the greater one.
  static bool worse(const Pair& a, const Pair& b) {
    return a.score != b.score ? a.score < b.score : a.left > b.left;
  }

  void find_pair(int32_t left);
  void join(const Pair& pair);
  void emit(std::string_view piece, std::vector<int32_t>& out);

  const Vocab* vocab_;
  const PieceIndex* index_;
  std::string_view text_;
  std::vector<Symbol> symbols_;
  std::vector<Pair> heap_;
  bool initial_ = false;  // the heap is being filled, in any order
  // For pieces of the type "unused", which merging goes through but never ends with: bytes of the
  // left half they were last made of.
  std::unordered_map<int32_t, uint32_t> unused_left_size_;
};

}  // namespace maestrale
