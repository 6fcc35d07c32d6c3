// SPDX-License-Identifier: Apache-2.0
// Arbitrary bytes through encode and decode. Valid UTF-8 must come back (U+2581 as a space), broken
// UTF-8 as if each bad byte had been U+FFFD, and text must never become a control token.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/utf8.h"
#include "tokenizer/sentencepiece.h"

namespace {

using namespace maestrale;

// Bytes, a few merges over ASCII, spaces and a two-byte letter, one user-defined piece.
Vocab fuzz_vocab() {
  Vocab vocab;
  const auto add = [&](const std::string& piece, PieceType type) {
    vocab.pieces.push_back(piece);
    vocab.types.push_back(type);
    vocab.scores.push_back(-float(vocab.pieces.size() % 17));
  };
  add("<unk>", PieceType::kUnknown);
  add("<s>", PieceType::kControl);
  add("</s>", PieceType::kControl);
  for (unsigned value = 0; value < 256; ++value) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", value);
    add(text, PieceType::kByte);
  }
  for (const char* piece : {"a", "b", "ab", "ba", "aba", "\xE2\x96\x81", "\xE2\x96\x81\xE2\x96\x81",
                            "\xE2\x96\x81\x61", "\xC3\xA9", "\xC3\xA9\xC3\xA9", "\xEF\xBF\xBD"})
    add(piece, PieceType::kNormal);
  add("aa", PieceType::kUnused);
  add("aaa", PieceType::kNormal);
  add("[DOC]", PieceType::kUserDefined);
  finish_vocab(vocab);
  return vocab;
}

std::string expected_text(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = utf8_character(text);
    if (length == 0)
      out += kReplacement;
    else if (text.starts_with(kSpaceMark))
      out += ' ';
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizer(fuzz_vocab());
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::vector<int32_t> ids = tokenizer.encode(text);
  for (const int32_t id : ids)
    if (id < 3) std::abort();
  if (tokenizer.decode(ids) != expected_text(text)) std::abort();
  tokenizer.decode(tokenizer.encode(text, {.add_bos = true, .parse_special = true}),
                   {.special_as_text = true});
  std::vector<int32_t> raw;
  for (size_t i = 0; i + 1 < size; i += 2)
    raw.push_back((data[i] << 8 | data[i + 1]) % tokenizer.vocab().size());
  if (!utf8_valid(tokenizer.decode(raw))) std::abort();
  return 0;
}
