// SPDX-License-Identifier: Apache-2.0
// Validation of a vocabulary: after this, the tokenizer never has to doubt it.
#include "tokenizer/vocab.h"

#include <cmath>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace maestrale {
namespace {

constexpr size_t kMaxPieceBytes = 65536;
constexpr size_t kMaxPieces = size_t{1} << 24;

[[noreturn]] void bad(const std::string& what) {
  throw Error(ErrorCode::kModelFormat, "The vocabulary is damaged: " + what + ".");
}

void check_special_id(const Vocab& vocab, const char* name, int32_t id) {
  if (id < 0 || id >= vocab.size())
    bad(std::string("the ") + name + " id " + std::to_string(id) + " is outside its " +
        std::to_string(vocab.size()) + " tokens");
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

void place_token(Vocab& vocab, int32_t id, std::string piece, PieceType type) {
  while (vocab.size() <= id) {
    vocab.pieces.push_back("[UNUSED" + std::to_string(vocab.size()) + "]");
    vocab.scores.push_back(0.0f);
    vocab.types.push_back(PieceType::kUnused);
  }
  vocab.pieces[size_t(id)] = std::move(piece);
  vocab.types[size_t(id)] = type;
}

int32_t find_token(const Vocab& vocab, std::string_view piece) {
  const auto found = std::find(vocab.pieces.begin(), vocab.pieces.end(), piece);
  return found == vocab.pieces.end() ? -1 : int32_t(found - vocab.pieces.begin());
}

int byte_piece_value(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

void finish_vocab(Vocab& vocab) {
  const size_t n = vocab.pieces.size();
  if (n == 0) bad("it has no tokens");
  if (n > kMaxPieces) bad("it has " + std::to_string(n) + " tokens, more than " + std::to_string(kMaxPieces));
  if (vocab.scores.size() != n)
    bad("it has " + std::to_string(n) + " tokens but " + std::to_string(vocab.scores.size()) + " scores");
  if (vocab.types.size() != n)
    bad("it has " + std::to_string(n) + " tokens but " + std::to_string(vocab.types.size()) + " types");
  check_special_id(vocab, "BOS", vocab.bos);
  check_special_id(vocab, "EOS", vocab.eos);
  for (const int32_t id : vocab.other_eos) check_special_id(vocab, "EOS", id);
  check_special_id(vocab, "unknown-token", vocab.unk);

  vocab.byte_ids.fill(-1);
  std::unordered_map<std::string_view, size_t> seen;
  seen.reserve(n);
  for (size_t i = 0; i < n; ++i) {
    const std::string& piece = vocab.pieces[i];
    const std::string token = "token " + std::to_string(i);
    if (piece.empty()) bad(token + " is empty");
    if (piece.size() > kMaxPieceBytes) bad(token + " has " + std::to_string(piece.size()) + " bytes");
    if (!utf8_valid(piece)) bad(token + " is not valid UTF-8");
    const auto [first, inserted] = seen.emplace(piece, i);
    if (!inserted) bad(token + " repeats token " + std::to_string(first->second));
    if (!std::isfinite(vocab.scores[i])) bad("the score of " + token + " is not a finite number");
    const int type = int(vocab.types[i]);
    if (type < int(PieceType::kNormal) || type > int(PieceType::kByte))
      bad(token + " has the unknown type " + std::to_string(type));
    if (vocab.types[i] != PieceType::kByte) continue;
    const int value = byte_piece_value(piece);
    if (value < 0) bad(token + " is typed as a byte but is not spelled <0x00> to <0xFF>");
    if (vocab.byte_ids[size_t(value)] >= 0)
      bad(token + " is a second token for byte " + std::to_string(value));
    vocab.byte_ids[size_t(value)] = int32_t(i);
  }
  for (size_t value = 0; value < 256; ++value)
    if (vocab.byte_ids[value] < 0) bad("it has no token for byte " + std::to_string(value));
}

}  // namespace maestrale
