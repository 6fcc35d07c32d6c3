// SPDX-License-Identifier: Apache-2.0
// Encoding cuts the text where no merge can ever happen, i.e. between two characters that stand side
// by side in no piece of the vocabulary. Merges never cross such a place, so every chunk (mostly a
// word) is merged on its own, with a heap that stays in the first-level cache.
#include "tokenizer/sentencepiece.h"

#include "base/error.h"
#include "base/utf8.h"

namespace maestrale {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 29;  // a space becomes 3 bytes; offsets stay below 2^31

// Spaces become U+2581 and each byte of broken UTF-8 U+FFFD, after the space that every text gets.
std::string normalise(std::string_view text, bool add_space_prefix) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + 3);
  if (add_space_prefix) out.append(kSpaceMark);
  while (!text.empty()) {
    size_t length = utf8_character(text);
    if (length == 0) {
      out.append(kReplacement);
      length = 1;
    } else if (text[0] == ' ') {
      out.append(kSpaceMark);
    } else {
      out.append(text, 0, length);
    }
    text.remove_prefix(length);
  }
  return out;
}

void check_length(size_t bytes) {
  if (bytes > kMaxTextBytes)
    throw Error(ErrorCode::kInvalidArg, "A text of " + std::to_string(bytes) +
                                            " bytes is too long to encode; " + std::to_string(kMaxTextBytes) +
                                            " bytes are accepted.");
}

}  // namespace

Tokenizer::Tokenizer(Vocab vocab) : vocab_(std::move(vocab)), index_(vocab_) {
  if (!vocab_.unusable.empty()) return;  // its pieces are no spellings
  for (int32_t id = 0; id < vocab_.size(); ++id) {
    const std::string& piece = vocab_.pieces[size_t(id)];
    const PieceType type = vocab_.types[size_t(id)];
    if (type == PieceType::kUserDefined) user_defined_.add(piece, id);
    if (type == PieceType::kControl || type == PieceType::kUnknown) specials_.add(piece, id);
    if (type == PieceType::kControl) special_tokens_.emplace(piece, id);
  }
}

void Tokenizer::append_text(std::string_view text, Merger& merger, std::vector<int32_t>& out) const {
  if (text.empty()) return;
  if (!vocab_.unusable.empty()) throw Error(ErrorCode::kModelUnsupported, vocab_.unusable);
  const std::string normal = normalise(text, vocab_.add_space_prefix);
  const std::string_view all = normal;
  size_t chunk = 0;
  char32_t left = 0;
  for (size_t at = 0; at < all.size();) {
    if (const auto frozen = user_defined_.match(all.substr(at)); frozen.id >= 0) {
      merger.merge(all.substr(chunk, at - chunk), out);
      out.push_back(frozen.id);
      at += frozen.length;
      chunk = at;
      continue;
    }
    const size_t length = utf8_character(all.substr(at));
    const char32_t right = code_point(all.substr(at), length);
    if (at > chunk && !index_.may_join(left, right)) {
      merger.merge(all.substr(chunk, at - chunk), out);
      chunk = at;
    }
    left = right;
    at += length;
  }
  merger.merge(all.substr(chunk), out);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  check_length(text.size());
  Merger merger(vocab_, index_);
  std::vector<int32_t> out;
  if (options.add_bos) out.push_back(vocab_.bos);
  if (!options.parse_special) {
    append_text(text, merger, out);
    return out;
  }
  size_t from = 0;
  for (size_t at = 0; at < text.size();) {
    const auto special = specials_.match(text.substr(at));
    if (special.id < 0) {
      ++at;
      continue;
    }
    append_text(text.substr(from, at - from), merger, out);
    const bool doubled = at == 0 && options.add_bos && special.id == vocab_.bos;
    if (!doubled) out.push_back(special.id);
    at += special.length;
    from = at;
  }
  append_text(text.substr(from), merger, out);
  return out;
}

std::vector<int32_t> Tokenizer::encode_segments(std::span<const PromptSegment> segments) const {
  Merger merger(vocab_, index_);
  std::vector<int32_t> out;
  for (const PromptSegment& segment : segments) {
    if (const int32_t* token = std::get_if<int32_t>(&segment)) {
      piece(*token);
      out.push_back(*token);
    } else {
      const std::string_view text = std::get<std::string_view>(segment);
      check_length(text.size());
      append_text(text, merger, out);
    }
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, const DecodeOptions& options) const {
  StreamDecoder decoder(vocab_, options);
  std::string out;
  for (const int32_t token : tokens) decoder.push(token, out);
  decoder.flush(out);
  return out;
}

const std::string& Tokenizer::piece(int32_t token) const {
  if (token < 0 || token >= vocab_.size())
    throw Error(ErrorCode::kInvalidArg, "Token id " + std::to_string(token) +
                                            " is outside the vocabulary of " + std::to_string(vocab_.size()) +
                                            " tokens.");
  return vocab_.pieces[size_t(token)];
}

}  // namespace maestrale
