// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/hf_vocab.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/json_fields.h"
#include "base/utf8.h"
#include "io/text_file.h"
#include "tokenizer/spm_vocab.h"
#include "tokenizer/tokenizer_json.h"

namespace maestrale {
namespace {

namespace fs = std::filesystem;

std::string missing_tokenizer(const std::string& directory) {
  return "'" + directory + "' has neither a tokenizer.model (SentencePiece) nor a tokenizer.json";
}

// Missing files say nothing.
class ConfigFile {
 public:
  ConfigFile(const std::string& directory, const char* name)
      : json_(read_json(directory, name).value_or(Json::parse("{}"))), fields_(json_, name) {}
  ConfigFile(const ConfigFile&) = delete;
  ConfigFile& operator=(const ConfigFile&) = delete;
  const JsonFields* operator->() const { return &fields_; }
  const JsonFields& operator*() const { return fields_; }

 private:
  const Json json_;
  const JsonFields fields_;
};

// tokenizer.model, or one of the names that Mistral gives the same file: tokenizer.model.v3,
// mistral_instruct_tokenizer_240323.model.v3. Empty when there is none.
std::string sentencepiece_name(const std::string& directory) {
  std::string best;
  std::error_code ignored;  // a directory that cannot be read has no files
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name == "tokenizer.model") return name;
    const size_t version = name.rfind(".model.v");
    if (version != std::string::npos && version + 8 < name.size() && name[version + 8] >= '1' &&
        name[version + 8] <= '9')
      best = std::max(best, name);
  }
  return best;
}

bool has_tokenizer(const std::string& directory) {
  std::error_code ignored;
  return !sentencepiece_name(directory).empty() ||
         fs::exists(fs::path(directory) / "tokenizer.json", ignored);
}

Vocab read_pieces(const std::string& directory) {
  if (const std::string name = sentencepiece_name(directory); !name.empty()) {
    const std::string file = read_text(directory, name).value_or("");
    return vocab_from_spm(std::as_bytes(std::span(file)));
  }
  if (const std::optional<Json> json = read_json(directory, "tokenizer.json"))
    return vocab_from_tokenizer_json(*json);
  std::error_code ignored;
  if (fs::exists(fs::path(directory) / "tekken.json", ignored))
    throw Error(ErrorCode::kModelUnsupported,
                missing_tokenizer(directory) + "; its tekken.json, a byte-level BPE, does not run");
  throw Error(ErrorCode::kModelUnsupported, missing_tokenizer(directory));
}

// One id or a list of them. Whether they are tokens of the vocabulary is checked at the end.
std::vector<int32_t> read_eos(const JsonFields& config) {
  const Json* value = config.find("eos_token_id");
  if (value == nullptr) return {};
  std::vector<int32_t> ids;
  for (const Json& id : value->array() != nullptr ? *value->array() : Json::Array{*value}) {
    const std::optional<int64_t> token = id.integer();
    if (!token || *token < 0 || *token > kMaxTokenId)
      config.fail("eos_token_id", "is neither a token id nor a list of them");
    ids.push_back(int32_t(*token));
  }
  return ids;
}

// What generation_config.json says ends a text goes before config.json. A token that the tokenizer itself
// calls its end keeps that name, which chat templates use, and ends texts too.
void read_all_eos(const std::string& directory, bool named, Vocab& vocab) {
  std::vector<int32_t> ids = read_eos(*ConfigFile(directory, "generation_config.json"));
  if (ids.empty()) ids = read_eos(*ConfigFile(directory, "config.json"));
  if (!named && !ids.empty()) vocab.eos = ids.front();
  for (const int32_t id : ids)
    if (id != vocab.eos) vocab.other_eos.push_back(id);
}

// A token of a fine-tune. Those of the model file itself are often listed again.
void add_token(const JsonFields& config, int32_t id, const std::string& content, bool special, Vocab& vocab) {
  if (id < vocab.size() && vocab.types[size_t(id)] != PieceType::kUnused) {
    if (vocab.pieces[size_t(id)] != content)
      throw Error(ErrorCode::kModelFormat, config.where() + " spells token " + std::to_string(id) + " '" +
                                               excerpt(content) + "', but the tokenizer '" +
                                               excerpt(vocab.pieces[size_t(id)]) + "'");
    return;
  }
  place_token(vocab, id, content, special ? PieceType::kControl : PieceType::kUserDefined);
}

// tokenizer_config.json: {"added_tokens_decoder": {"32000": {"content": "<|im_end|>", "special": true}}}
// added_tokens.json:     {"<|im_end|>": 32000}
void add_tokens(const std::string& directory, const JsonFields& tokenizer, Vocab& vocab) {
  if (const std::optional<JsonFields> decoder = tokenizer.object("added_tokens_decoder")) {
    for (const auto& [key, value] : decoder->members()) {
      int32_t id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kMaxTokenId)
        decoder->fail(excerpt(key), "is no token id");
      const JsonFields token(value, "token " + key + " of " + tokenizer.where());
      const std::optional<std::string> content = token.text("content");
      if (!content) token.fail("content", "is missing");
      add_token(tokenizer, id, *content, token.flag("special").value_or(true), vocab);
    }
  }
  const ConfigFile added(directory, "added_tokens.json");
  for (const auto& [content, value] : added->members()) {
    const std::optional<int64_t> id = value.integer();
    if (!id || *id < 0 || *id > kMaxTokenId) added->fail(excerpt(content), "is no token id");
    add_token(*added, int32_t(*id), content, true, vocab);
  }
}

// {"eos_token": "</s>"} or {"eos_token": {"content": "</s>"}}; false when it is not there.
bool read_named_token(const JsonFields& tokenizer, const char* field, Vocab& vocab, int32_t& id) {
  const Json* value = tokenizer.find(field);
  if (value == nullptr) return false;
  if (value->object() != nullptr) value = value->find("content");
  if (value == nullptr || value->string() == nullptr) tokenizer.fail(field, "is no token");
  id = find_token(vocab, *value->string());
  if (id < 0)
    tokenizer.fail(field, "is '" + excerpt(*value->string()) + "', which the vocabulary does not have");
  return true;
}

void set_template(const std::string& name, const std::string& source, Vocab& vocab) {
  if (name == "default")
    vocab.chat_template = source;
  else
    vocab.named_chat_templates[name] = source;
}

// One text, or [{"name": "default", "template": text}, ...].
void read_template_member(const JsonFields& config, Vocab& vocab) {
  const Json* value = config.find("chat_template");
  if (value == nullptr) return;
  if (value->string() != nullptr) return set_template("default", *value->string(), vocab);
  for (const Json& item : *config.array("chat_template")) {
    const JsonFields entry(item, "a chat template of " + config.where());
    const std::optional<std::string> name = entry.text("name"), source = entry.text("template");
    if (!name || !source) entry.fail(name ? "template" : "name", "is missing");
    set_template(*name, *source, vocab);
  }
}

// Later files go before earlier ones, as in transformers: they are the newer way to say it.
void read_templates(const std::string& directory, const JsonFields& tokenizer, Vocab& vocab) {
  read_template_member(tokenizer, vocab);
  read_template_member(*ConfigFile(directory, "chat_template.json"), vocab);
  if (auto own = read_text(directory, "chat_template.jinja")) {
    if (!utf8_valid(*own)) throw Error(ErrorCode::kModelFormat, "chat_template.jinja is not valid UTF-8");
    vocab.chat_template = std::move(*own);
  }
}

}  // namespace

Vocab vocab_from_hf(const std::string& directory) {
  Vocab vocab = read_pieces(directory);
  const ConfigFile tokenizer(directory, "tokenizer_config.json");
  vocab.add_bos = tokenizer->flag("add_bos_token").value_or(vocab.add_bos);
  vocab.add_eos = tokenizer->flag("add_eos_token").value_or(vocab.add_eos);
  vocab.add_space_prefix = tokenizer->flag("add_prefix_space").value_or(vocab.add_space_prefix);
  add_tokens(directory, *tokenizer, vocab);
  read_named_token(*tokenizer, "bos_token", vocab, vocab.bos);
  read_named_token(*tokenizer, "unk_token", vocab, vocab.unk);
  const bool named = read_named_token(*tokenizer, "eos_token", vocab, vocab.eos);
  read_templates(directory, *tokenizer, vocab);
  read_all_eos(directory, named, vocab);
  finish_vocab(vocab);
  return vocab;
}

Vocab vocab_from_hf(const std::string& directory, int32_t vocab_size) {
  if (has_tokenizer(directory)) return vocab_from_hf(directory);
  Vocab vocab;
  vocab.unusable = missing_tokenizer(directory) + ", so the model takes token ids only";
  for (int32_t id = 0; id < vocab_size; ++id)
    place_token(vocab, id, "[TOKEN" + std::to_string(id) + "]", PieceType::kControl);
  read_all_eos(directory, false, vocab);
  for (const int32_t id : {vocab.bos, vocab.eos})
    if (id >= vocab_size)
      throw Error(ErrorCode::kModelFormat, "the model has " + std::to_string(vocab_size) +
                                               " tokens, too few for the special token " +
                                               std::to_string(id));
  return vocab;
}

}  // namespace maestrale
