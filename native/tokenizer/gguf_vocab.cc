// SPDX-License-Identifier: Apache-2.0
// tokenizer.ggml.* to Vocab, with the defaults that GGUF writers rely on when a key is absent, and back.
#include "tokenizer/gguf_vocab.h"

#include <optional>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
constexpr std::string_view kEndOfTurnKey = "tokenizer.ggml.eot_token_id";

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
  if (const int32_t eot = id_or(file, kEndOfTurnKey, vocab.eos); eot != vocab.eos) vocab.other_eos = {eot};
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

void write_vocab(const Vocab& vocab, int32_t embedding_rows, GgufMetadata& metadata) {
  std::vector<std::string> pieces = vocab.pieces;
  std::vector<float> scores = vocab.scores;
  std::vector<int32_t> types;
  for (const PieceType type : vocab.types) types.push_back(int32_t(type));
  while (int64_t(pieces.size()) < embedding_rows) {
    pieces.push_back("[PAD" + std::to_string(pieces.size()) + "]");
    scores.push_back(0.0f);
    types.push_back(int32_t(PieceType::kUnused));
  }
  metadata.set_string("tokenizer.ggml.model", "llama");
  metadata.set_strings("tokenizer.ggml.tokens", pieces);
  metadata.set_f32s("tokenizer.ggml.scores", scores);
  metadata.set_i32s("tokenizer.ggml.token_type", types);
  metadata.set_u32("tokenizer.ggml.bos_token_id", uint32_t(vocab.bos));
  metadata.set_u32("tokenizer.ggml.eos_token_id", uint32_t(vocab.eos));
  metadata.set_u32("tokenizer.ggml.unknown_token_id", uint32_t(vocab.unk));
  // GGUF has room for one more token that ends a text.
  if (!vocab.other_eos.empty()) metadata.set_u32(kEndOfTurnKey, uint32_t(vocab.other_eos.front()));
  metadata.set_bool("tokenizer.ggml.add_bos_token", vocab.add_bos);
  metadata.set_bool("tokenizer.ggml.add_eos_token", vocab.add_eos);
  metadata.set_bool("tokenizer.ggml.add_space_prefix", vocab.add_space_prefix);
  if (!vocab.chat_template.empty()) metadata.set_string(kTemplateKey, vocab.chat_template);
  for (const auto& [name, text] : vocab.named_chat_templates)
    metadata.set_string(std::string(kTemplateKey) + "." + name, text);
}

}  // namespace maestrale
