// SPDX-License-Identifier: Apache-2.0
// tokenizer.ggml.* to Vocab, with the defaults that GGUF writers rely on when a key is absent.
#include "tokenizer/gguf_vocab.h"

#include <optional>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";

int32_t id_or(const GgufFile& file, std::string_view key, int32_t fallback) {
  const std::optional<uint64_t> id = file.get_uint(key);
  if (!id) return fallback;
  if (*id > 0x7fffffff)
    throw Error(ErrorCode::kModelFormat,
                std::string(key) + " is " + std::to_string(*id) + ", which is no token id.");
  return int32_t(*id);
}

// Files without token types leave it to the spelling: <0xHH> is a byte, and the three special ids
// are what their keys say.
std::vector<PieceType> types_from_spelling(const Vocab& vocab) {
  std::vector<PieceType> types(vocab.pieces.size(), PieceType::kNormal);
  for (size_t i = 0; i < types.size(); ++i)
    if (byte_piece_value(vocab.pieces[i]) >= 0) types[i] = PieceType::kByte;
  const auto set = [&](int32_t id, PieceType type) {
    if (id >= 0 && id < vocab.size()) types[size_t(id)] = type;
  };
  set(vocab.unk, PieceType::kUnknown);
  set(vocab.bos, PieceType::kControl);
  set(vocab.eos, PieceType::kControl);
  return types;
}

void read_templates(const GgufFile& file, Vocab& vocab) {
  vocab.chat_template = std::string(file.get_string(kTemplateKey).value_or(""));
  const std::string prefix = std::string(kTemplateKey) + ".";
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with(prefix)) continue;
    if (const auto* text = std::get_if<std::string_view>(&value))
      vocab.named_chat_templates.emplace(key.substr(prefix.size()), *text);
  }
}

}  // namespace

Vocab vocab_from_gguf(const GgufFile& file) {
  const std::optional<std::string_view> model = file.get_string("tokenizer.ggml.model");
  const std::vector<std::string_view>* tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!model || !tokens)
    throw Error(ErrorCode::kModelFormat,
                "The file holds no vocabulary: tokenizer.ggml.model or tokenizer.ggml.tokens is missing.");
  if (*model != "llama") {
    const std::optional<std::string_view> pre = file.get_string("tokenizer.ggml.pre");
    throw Error(ErrorCode::kModelUnsupported,
                "The vocabulary is of the kind '" + std::string(*model) + "'" +
                    (pre ? " ('" + std::string(*pre) + "')" : std::string()) +
                    "; only SentencePiece ('llama') vocabularies are supported.");
  }

  Vocab vocab;
  vocab.pieces.assign(tokens->begin(), tokens->end());
  vocab.bos = id_or(file, "tokenizer.ggml.bos_token_id", 1);
  vocab.eos = id_or(file, "tokenizer.ggml.eos_token_id", 2);
  vocab.unk = id_or(file, "tokenizer.ggml.unknown_token_id", 0);
  vocab.add_bos = file.get_bool("tokenizer.ggml.add_bos_token").value_or(true);
  vocab.add_eos = file.get_bool("tokenizer.ggml.add_eos_token").value_or(false);
  vocab.add_space_prefix = file.get_bool("tokenizer.ggml.add_space_prefix").value_or(true);

  if (const auto scores = file.get_floats("tokenizer.ggml.scores"))
    vocab.scores.assign(scores->begin(), scores->end());
  else
    vocab.scores.assign(vocab.pieces.size(), 0.0f);

  if (const auto types = file.get_ints("tokenizer.ggml.token_type")) {
    for (size_t i = 0; i < types->size(); ++i) {
      const int64_t type = (*types)[i];
      if (type < int64_t(PieceType::kNormal) || type > int64_t(PieceType::kByte))
        throw Error(ErrorCode::kModelFormat, "tokenizer.ggml.token_type gives token " + std::to_string(i) +
                                                 " the unknown type " + std::to_string(type) + ".");
      vocab.types.push_back(PieceType(type));
    }
  } else {
    vocab.types = types_from_spelling(vocab);
  }
  read_templates(file, vocab);
  finish_vocab(vocab);
  return vocab;
}

}  // namespace maestrale
