// SPDX-License-Identifier: Apache-2.0
// A SentencePiece vocabulary, wherever it was read from: the pieces with their scores and types, and
// what the file says about encoding. gguf_vocab.h reads one from GGUF metadata.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace maestrale {

// The numbers are those of SentencePiece's protobuf and of GGUF's tokenizer.ggml.token_type.
enum class PieceType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct Vocab {
  std::vector<std::string> pieces;  // valid UTF-8; spaces are U+2581
  std::vector<float> scores;        // higher merges first
  std::vector<PieceType> types;
  int32_t bos = 1;
  int32_t eos = 2;
  std::vector<int32_t> other_eos;  // end a text as eos does; few files have any
  int32_t unk = 0;
  bool add_bos = true;
  bool add_eos = false;
  bool add_space_prefix = true;  // every text starts as if a space stood before it
  std::string chat_template;     // Jinja source, empty when the file has none
  std::map<std::string, std::string> named_chat_templates;
  std::string unusable;                 // why no text can be encoded; empty for every real vocabulary
  std::array<int32_t, 256> byte_ids{};  // id of <0xHH>; filled by finish_vocab()

  int32_t size() const { return int32_t(pieces.size()); }
  bool ends_text(int32_t token) const {
    return token == eos || std::find(other_eos.begin(), other_eos.end(), token) != other_eos.end();
  }
};

// Puts a token at `id`, which may lie beyond the end: ids in between stay unused.
void place_token(Vocab& vocab, int32_t id, std::string piece, PieceType type);

// The id of the token spelled `piece`, by linear search; -1 when there is none.
int32_t find_token(const Vocab& vocab, std::string_view piece);

// The value of a piece spelled <0xHH>, -1 for every other text.
int byte_piece_value(std::string_view piece);

// Checks everything the tokenizer relies on and fills byte_ids. Every reader calls this last.
// Throws Error{kModelFormat} that names the token.
void finish_vocab(Vocab& vocab);

}  // namespace maestrale
