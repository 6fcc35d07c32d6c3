// SPDX-License-Identifier: Apache-2.0
// Symbols are a doubly linked list over the text; a heap holds the candidate pairs. Entries that a
// later merge made stale stay in the heap and are recognised by their size when they come up.
#include "tokenizer/merger.h"

#include <algorithm>

#include "base/utf8.h"

namespace maestrale {

Merger::Merger(const Vocab& vocab, const PieceIndex& index) : vocab_(&vocab), index_(&index) {}

void Merger::find_pair(int32_t left) {
  if (left < 0 || symbols_[size_t(left)].next < 0) return;
  const Symbol& symbol = symbols_[size_t(left)];
  const uint32_t size = symbol.size + symbols_[size_t(symbol.next)].size;
  const int32_t id = index_->find(text_.substr(symbol.start, size));
  if (id < 0) return;
  heap_.push_back({vocab_->scores[size_t(id)], left, size});
  if (!initial_) std::push_heap(heap_.begin(), heap_.end(), worse);
  if (vocab_->types[size_t(id)] == PieceType::kUnused) unused_left_size_[id] = symbol.size;
}

void Merger::join(const Pair& pair) {
  Symbol& left = symbols_[size_t(pair.left)];
  Symbol& right = symbols_[size_t(left.next)];
  left.size += right.size;
  left.next = right.next;
  right.size = 0;
  if (left.next >= 0) symbols_[size_t(left.next)].previous = pair.left;
  find_pair(left.previous);
  find_pair(pair.left);
}

void Merger::merge(std::string_view text, std::vector<int32_t>& out) {
  text_ = text;
  symbols_.clear();
  heap_.clear();
  unused_left_size_.clear();
  for (size_t at = 0; at < text.size();) {
    const uint32_t size = uint32_t(utf8_character(text.substr(at)));
    const int32_t index = int32_t(symbols_.size());
    symbols_.push_back({uint32_t(at), size, index - 1, index + 1});
    at += size;
  }
  if (symbols_.empty()) return;
  symbols_.back().next = -1;

  initial_ = true;
  for (size_t i = 0; i + 1 < symbols_.size(); ++i) find_pair(int32_t(i));
  std::make_heap(heap_.begin(), heap_.end(), worse);
  initial_ = false;

  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), worse);
    const Pair best = heap_.back();
    heap_.pop_back();
    const Symbol& left = symbols_[size_t(best.left)];
    if (left.size == 0 || left.next < 0) continue;
    if (left.size + symbols_[size_t(left.next)].size == best.size) join(best);
  }
  for (int32_t i = 0; i >= 0; i = symbols_[size_t(i)].next)
    emit(text.substr(symbols_[size_t(i)].start, symbols_[size_t(i)].size), out);
}

void Merger::emit(std::string_view piece, std::vector<int32_t>& out) {
  std::vector<std::string_view> parts;  // still to emit, last first; fills only for unused pieces
  for (;;) {
    const int32_t id = index_->find(piece);
    const auto halves = id < 0 ? unused_left_size_.end() : unused_left_size_.find(id);
    if (halves != unused_left_size_.end()) {
      parts.push_back(piece.substr(halves->second));
      piece = piece.substr(0, halves->second);
      continue;
    }
    if (id >= 0)
      out.push_back(id);
    else
      for (const char byte : piece) out.push_back(vocab_->byte_ids[uint8_t(byte)]);
    if (parts.empty()) return;
    piece = parts.back();
    parts.pop_back();
  }
}

}  // namespace maestrale
