// SPDX-License-Identifier: Apache-2.0
// Tokenizers and JSON cases from tests/vectors, and a tiny vocabulary to damage.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "check.h"
#include "io/gguf.h"
#include "tokenizer/gguf_vocab.h"
#include "tokenizer/sentencepiece.h"
#include "vectors.h"

namespace maestrale::test {

inline Vocab load_vocab(const std::string& name) {
  const std::vector<std::byte> file = read_vector_file(name);
  return vocab_from_gguf(GgufFile::parse(file, file.size()));
}

// "v0.1" or "v0.3": the vocabularies with 32000 and 32768 tokens. Made once per process.
inline const Tokenizer& published_tokenizer(const std::string& version) {
  static std::map<std::string, std::unique_ptr<Tokenizer>> made;
  auto& slot = made[version];
  if (!slot) slot = std::make_unique<Tokenizer>(load_vocab("tokenizers/vocab-only-" + version + ".gguf"));
  return *slot;
}

inline Json load_json(const std::string& name) {
  const std::vector<std::byte> bytes = read_vector_file(name);
  return Json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

template <class T>
std::vector<T> json_numbers(const Json& list) {
  std::vector<T> out;
  for (const Json& item : *list.array()) out.push_back(T(item.number().value()));
  return out;
}

inline std::string show(const std::vector<int32_t>& ids) {
  std::string out;
  for (const int32_t id : ids) out += std::to_string(id) + " ";
  return out;
}

// <unk> <s> </s>, the 256 bytes, then `pieces` with the scores -1, -2, ...
inline Vocab tiny_vocab(const std::vector<std::string>& pieces) {
  Vocab vocab;
  const auto add = [&](std::string piece, PieceType type, float score) {
    vocab.pieces.push_back(std::move(piece));
    vocab.types.push_back(type);
    vocab.scores.push_back(score);
  };
  add("<unk>", PieceType::kUnknown, 0);
  add("<s>", PieceType::kControl, 0);
  add("</s>", PieceType::kControl, 0);
  for (int value = 0; value < 256; ++value) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", unsigned(value));
    add(text, PieceType::kByte, 0);
  }
  for (size_t i = 0; i < pieces.size(); ++i) add(pieces[i], PieceType::kNormal, -float(i + 1));
  return vocab;
}

}  // namespace maestrale::test
