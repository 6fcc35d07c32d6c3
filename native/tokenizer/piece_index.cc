// SPDX-License-Identifier: Apache-2.0
// Two open-addressing tables. The hashes are fixed, so a hostile vocabulary could make its own
// look-ups slow; it cannot make anybody else's.
#include "tokenizer/piece_index.h"

#include <bit>
#include <cstring>

#include "base/utf8.h"

namespace maestrale {
namespace {

uint64_t mix(uint64_t value) {
  value *= 0x9E3779B97F4A7C15u;
  return value ^ (value >> 29);
}

uint64_t hash_text(std::string_view text) {
  uint64_t hash = text.size();
  while (text.size() >= 8) {
    uint64_t word;
    std::memcpy(&word, text.data(), 8);
    hash = mix(hash ^ word);
    text.remove_prefix(8);
  }
  uint64_t word = 0;
  for (size_t i = 0; i < text.size(); ++i) word |= uint64_t(uint8_t(text[i])) << (8 * i);
  hash = mix(hash ^ word);
  return hash ^ (hash >> 32);
}

// Never 0: the left character is stored plus one.
uint64_t pair_key(char32_t left, char32_t right) { return (uint64_t(left) + 1) << 32 | right; }

uint64_t hash_pair(uint64_t key) {
  key = mix(key);
  return key ^ (key >> 32);
}

}  // namespace

PieceIndex::PieceIndex(const Vocab& vocab)
    : pieces_(&vocab.pieces), id_slots_(std::bit_ceil(2 * vocab.pieces.size()), -1), pair_slots_(1024) {
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const PieceType type = vocab.types[size_t(id)];
    if (type == PieceType::kNormal || type == PieceType::kUserDefined || type == PieceType::kUnused)
      add_piece(id);
  }
}

void PieceIndex::add_piece(int32_t id) {
  std::string_view piece = (*pieces_)[size_t(id)];
  longest_ = std::max(longest_, piece.size());
  size_t slot = hash_text(piece) & (id_slots_.size() - 1);
  while (id_slots_[slot] >= 0) slot = (slot + 1) & (id_slots_.size() - 1);
  id_slots_[slot] = id;

  size_t length = utf8_character(piece);
  char32_t left = code_point(piece, length);
  for (piece.remove_prefix(length); !piece.empty(); piece.remove_prefix(length)) {
    length = utf8_character(piece);
    const char32_t right = code_point(piece, length);
    if (!may_join(left, right)) add_pair(left, right);
    left = right;
  }
}

void PieceIndex::add_pair(char32_t left, char32_t right) {
  const auto insert = [this](uint64_t key) {
    size_t slot = hash_pair(key) & (pair_slots_.size() - 1);
    while (pair_slots_[slot] != 0) slot = (slot + 1) & (pair_slots_.size() - 1);
    pair_slots_[slot] = key;
  };
  if (2 * ++pair_count_ > pair_slots_.size()) {
    std::vector<uint64_t> old(pair_slots_.size() * 2);
    old.swap(pair_slots_);
    for (const uint64_t key : old)
      if (key != 0) insert(key);
  }
  insert(pair_key(left, right));
}

int32_t PieceIndex::find(std::string_view text) const {
  if (text.size() > longest_) return -1;
  const size_t mask = id_slots_.size() - 1;
  for (size_t slot = hash_text(text) & mask; id_slots_[slot] >= 0; slot = (slot + 1) & mask)
    if ((*pieces_)[size_t(id_slots_[slot])] == text) return id_slots_[slot];
  return -1;
}

bool PieceIndex::may_join(char32_t left, char32_t right) const {
  const uint64_t key = pair_key(left, right);
  const size_t mask = pair_slots_.size() - 1;
  for (size_t slot = hash_pair(key) & mask; pair_slots_[slot] != 0; slot = (slot + 1) & mask)
    if (pair_slots_[slot] == key) return true;
  return false;
}

}  // namespace maestrale
