// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/hf_vocab.h"

#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "io/mapped_file.h"
#include "tokenizer/spm_vocab.h"

namespace maestrale {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxTokenId = (1 << 20) - 1;

std::string missing_tokenizer(const std::string& directory) {
  return "'" + directory + "' has no tokenizer.model (SentencePiece), the one tokenizer file that is read";
}

std::optional<std::string> read_text(const fs::path& path) {
  std::error_code ignored;  // what cannot be examined is not there
  if (!fs::exists(path, ignored)) return std::nullopt;
  const MappedFile file(path.string());
  std::string text(size_t(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

// The JSON file `name` of a directory; its members are looked up with messages that say where.
class Config {
 public:
  Config(const std::string& directory, const char* name) : name_(name) {
    const std::optional<std::string> text = read_text(fs::path(directory) / name);
    if (!text) return;
    json_ = Json::parse(*text);
    if (json_.object() == nullptr) fail("holds no JSON object");
  }

  // The member, unless it is absent or null.
  const Json* find(const char* key) const {
    const Json* value = json_.find(key);
    return value == nullptr || value->is_null() ? nullptr : value;
  }
  const Json::Object* object() const { return json_.object(); }

  bool flag(const char* key, bool fallback) const {
    const Json* value = find(key);
    if (value == nullptr) return fallback;
    if (!value->boolean()) fail(std::string("has a '") + key + "' that is neither true nor false");
    return *value->boolean();
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorCode::kModelFormat, name_ + " " + problem);
  }

 private:
  const std::string name_;
  Json json_;
};

int32_t token_id(const Config& config, const Json& value) {
  const std::optional<int64_t> id = value.integer();
  if (!id || *id < 0 || *id > kMaxTokenId) config.fail("has a token id that is none");
  return int32_t(*id);
}

// One id or a list of them. Whether they are tokens of the vocabulary is checked at the end.
bool read_eos(const Config& config, Vocab& vocab) {
  const Json* value = config.find("eos_token_id");
  if (value == nullptr) return false;
  if (value->array() == nullptr) {
    vocab.eos = token_id(config, *value);
    return true;
  }
  if (value->array()->empty()) return false;
  vocab.eos = token_id(config, value->array()->front());
  for (const Json& id : *value->array())
    if (const int32_t other = token_id(config, id); other != vocab.eos) vocab.other_eos.push_back(other);
  return true;
}

// A token of a fine-tune. Those of the model file itself are often listed again.
void add_token(const Config& config, int32_t id, const std::string& content, bool special, Vocab& vocab) {
  if (id < vocab.size() && vocab.types[size_t(id)] != PieceType::kUnused) {
    if (vocab.pieces[size_t(id)] != content)
      config.fail("spells token " + std::to_string(id) + " '" + content.substr(0, 64) +
                  "', but tokenizer.model '" + vocab.pieces[size_t(id)].substr(0, 64) + "'");
    return;
  }
  while (vocab.size() <= id) {  // ids may come in any order; gaps stay unused
    vocab.pieces.push_back("[UNUSED" + std::to_string(vocab.size()) + "]");
    vocab.scores.push_back(0.0f);
    vocab.types.push_back(PieceType::kUnused);
  }
  vocab.pieces[size_t(id)] = content;
  vocab.types[size_t(id)] = special ? PieceType::kControl : PieceType::kUserDefined;
}

// tokenizer_config.json: {"added_tokens_decoder": {"32000": {"content": "<|im_end|>", "special": true}}}
// added_tokens.json:     {"<|im_end|>": 32000}
void add_tokens(const std::string& directory, const Config& tokenizer, Vocab& vocab) {
  if (const Json* decoder = tokenizer.find("added_tokens_decoder")) {
    if (decoder->object() == nullptr) tokenizer.fail("has an 'added_tokens_decoder' that is no object");
    for (const auto& [key, token] : *decoder->object()) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      const Json* content = token.find("content");
      const Json* special = token.find("special");
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId ||
          content == nullptr || content->string() == nullptr)
        tokenizer.fail("has an added token '" + key.substr(0, 64) + "' that is none");
      add_token(tokenizer, id, *content->string(), special == nullptr || special->boolean().value_or(true),
                vocab);
    }
  }
  const Config added(directory, "added_tokens.json");
  if (added.object() == nullptr) return;
  for (const auto& [content, id] : *added.object())
    add_token(added, token_id(added, id), content, true, vocab);
}

void read_templates(const std::string& directory, const Config& tokenizer, Vocab& vocab) {
  if (const Json* value = tokenizer.find("chat_template")) {
    if (value->string() != nullptr) vocab.chat_template = *value->string();
    if (value->array() != nullptr) {
      for (const Json& entry : *value->array()) {
        const Json* name = entry.find("name");
        const Json* source = entry.find("template");
        if (name == nullptr || name->string() == nullptr || source == nullptr || source->string() == nullptr)
          tokenizer.fail("has a chat template without name or text");
        if (*name->string() == "default")
          vocab.chat_template = *source->string();
        else
          vocab.named_chat_templates[*name->string()] = *source->string();
      }
    }
  }
  if (auto own = read_text(fs::path(directory) / "chat_template.jinja")) {
    if (!utf8_valid(*own)) throw Error(ErrorCode::kModelFormat, "chat_template.jinja is not valid UTF-8");
    vocab.chat_template = std::move(*own);
  }
}

}  // namespace

Vocab vocab_from_hf(const std::string& directory) {
  const std::optional<std::string> model = read_text(fs::path(directory) / "tokenizer.model");
  if (!model) throw Error(ErrorCode::kModelUnsupported, missing_tokenizer(directory));
  Vocab vocab = vocab_from_spm(std::as_bytes(std::span(*model)));
  const Config tokenizer(directory, "tokenizer_config.json");
  vocab.add_bos = tokenizer.flag("add_bos_token", true);
  vocab.add_eos = tokenizer.flag("add_eos_token", false);
  vocab.add_space_prefix = tokenizer.flag("add_prefix_space", vocab.add_space_prefix);
  add_tokens(directory, tokenizer, vocab);
  read_templates(directory, tokenizer, vocab);
  // What generation_config.json says goes before config.json, and that before the tokenizer.
  if (!read_eos(Config(directory, "generation_config.json"), vocab))
    read_eos(Config(directory, "config.json"), vocab);
  finish_vocab(vocab);
  return vocab;
}

Vocab vocab_from_hf(const std::string& directory, int32_t vocab_size) {
  std::error_code ignored;
  if (fs::exists(fs::path(directory) / "tokenizer.model", ignored)) return vocab_from_hf(directory);
  Vocab vocab;
  vocab.unusable = missing_tokenizer(directory) + ", so the model takes token ids only";
  for (int32_t id = 0; id < vocab_size; ++id) {
    vocab.pieces.push_back("[TOKEN" + std::to_string(id) + "]");
    vocab.scores.push_back(0.0f);
    vocab.types.push_back(PieceType::kControl);
  }
  if (!read_eos(Config(directory, "generation_config.json"), vocab))
    read_eos(Config(directory, "config.json"), vocab);
  for (const int32_t id : {vocab.bos, vocab.eos})
    if (id >= vocab_size)
      throw Error(ErrorCode::kModelFormat, "the model has " + std::to_string(vocab_size) +
                                               " tokens, too few for the special token " +
                                               std::to_string(id));
  return vocab;
}

}  // namespace maestrale
