// SPDX-License-Identifier: Apache-2.0
// SentencePiece's decoding rules (sentencepiece_processor.cc, Decode), turned into a state machine.
#include "tokenizer/stream_decoder.h"

#include "base/error.h"
#include "base/utf8.h"

namespace maestrale {
namespace {

constexpr std::string_view kUnknownText = " \xE2\x81\x87 ";  // space U+2047 space

void append_piece(std::string_view piece, std::string& out) {
  size_t from = 0;
  for (size_t mark; (mark = piece.find(kSpaceMark, from)) != piece.npos; from = mark + kSpaceMark.size()) {
    out.append(piece, from, mark - from);
    out.push_back(' ');
  }
  out.append(piece, from);
}

}  // namespace

void Utf8Assembler::push(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_.append(bytes);
    bytes = joined;
    pending_.clear();
  }
  while (!bytes.empty()) {
    const size_t expected = utf8_expected_length(uint8_t(bytes[0]));
    const size_t agreeing = utf8_agreeing_bytes(bytes);
    if (agreeing == expected) {
      out.append(bytes, 0, expected);
      bytes.remove_prefix(expected);
    } else if (expected != 0 && agreeing == bytes.size()) {
      pending_ = bytes;
      return;
    } else {
      out.append(kReplacement);
      bytes.remove_prefix(1);
    }
  }
}

void Utf8Assembler::flush(std::string& out) {
  for (size_t i = 0; i < pending_.size(); ++i) out.append(kReplacement);
  pending_.clear();
}

StreamDecoder::StreamDecoder(const Vocab& vocab, DecodeOptions options)
    : vocab_(&vocab), options_(options), at_start_(options.strip_leading_space && vocab.add_space_prefix) {}

void StreamDecoder::push(int32_t token, std::string& out) {
  if (token < 0 || token >= vocab_->size())
    throw Error(ErrorCode::kInvalidArg, "Token id " + std::to_string(token) +
                                            " is outside the vocabulary of " +
                                            std::to_string(vocab_->size()) + " tokens.");
  std::string_view piece = vocab_->pieces[size_t(token)];
  const PieceType type = vocab_->types[size_t(token)];
  if (type == PieceType::kByte) {
    const char byte = char(byte_piece_value(piece));
    bytes_.push({&byte, 1}, out);
    at_start_ = false;
    return;
  }
  // A run of byte tokens ends at any other token, also at one without text.
  bytes_.flush(out);
  if (type == PieceType::kControl && !options_.special_as_text) return;
  if (type == PieceType::kControl || type == PieceType::kUnknown) {
    out.append(options_.special_as_text ? piece : kUnknownText);
  } else {
    if (at_start_ && piece.starts_with(kSpaceMark)) piece.remove_prefix(kSpaceMark.size());
    append_piece(piece, out);
  }
  at_start_ = false;
}

void StreamDecoder::flush(std::string& out) { bytes_.flush(out); }

}  // namespace maestrale
