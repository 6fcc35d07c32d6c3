// SPDX-License-Identifier: Apache-2.0
// SentencePiece BPE with byte fallback (Kudo & Richardson 2018), token for token what the published
// Mistral vocabularies v1, v2 and v3 give: no normalisation, one space in front of every text.
// Immutable after construction and safe to use from any number of threads.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tokenizer/literal_matcher.h"
#include "tokenizer/merger.h"
#include "tokenizer/piece_index.h"
#include "tokenizer/stream_decoder.h"
#include "tokenizer/vocab.h"

namespace maestrale {

struct EncodeOptions {
  bool add_bos = false;
  // Text never yields control tokens unless this is set. When it is, the text between two special
  // tokens is encoded on its own, with its own leading space, as HF's "legacy" tokenizers and
  // llama.cpp do it.
  bool parse_special = false;
};

// A part of a prompt: a token as it is, or raw text that is encoded on its own.
using PromptSegment = std::variant<int32_t, std::string_view>;

class Tokenizer {
 public:
  // `vocab` is finished (finish_vocab).
  explicit Tokenizer(Vocab vocab);
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Takes O(n log n) for any text. A literal BOS token at the start of the text (parse_special) is
  // not doubled by add_bos. Broken UTF-8 reads as U+FFFD. Throws Error{kInvalidArg} above 512 MiB.
  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  // A token-exact prompt: each text is encoded as encode() would without options; nothing is added.
  std::vector<int32_t> encode_segments(std::span<const PromptSegment> segments) const;

  // Inverse of encode up to broken UTF-8. Throws Error{kInvalidArg} for an id out of range.
  std::string decode(std::span<const int32_t> tokens, const DecodeOptions& options = {}) const;

  // The piece as the vocabulary spells it (spaces are U+2581). Throws Error{kInvalidArg}.
  const std::string& piece(int32_t token) const;

  // Every control token by its spelling.
  const std::map<std::string, int32_t>& special_tokens() const { return special_tokens_; }
  const Vocab& vocab() const { return vocab_; }

 private:
  void append_text(std::string_view text, Merger& merger, std::vector<int32_t>& out) const;

  Vocab vocab_;
  PieceIndex index_;
  std::map<std::string, int32_t> special_tokens_;
  LiteralMatcher user_defined_;
  LiteralMatcher specials_;  // what parse_special looks for: control tokens and <unk>
};

}  // namespace maestrale
