// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json of a SentencePiece model holds what the model does, not what it says: two equal ways to
// put U+2581 for spaces, the pieces without their scores, and all merges, best first. merge_order.h turns the
// order of the merges back into scores.
#include "tokenizer/tokenizer_json.h"

#include <optional>
#include <string>
#include <utility>

#include "base/json_fields.h"
#include "base/utf8.h"
#include "tokenizer/merge_order.h"

namespace maestrale {
namespace {

std::string type_of(const JsonFields& step) {
  const std::optional<std::string> type = step.text("type");
  if (!type) step.fail("type", "is missing");
  return *type;
}

[[noreturn]] void unsupported_step(const JsonFields& step, const std::string& type) {
  throw Error(
      ErrorCode::kModelUnsupported,
      step.where() + " is '" + excerpt(type) + "', as Mistral 7B's SentencePiece tokenizers have none" +
          (type == "ByteLevel" || type == "Split" ? "; byte-level BPE (GPT-2, tekken) does not run" : ""));
}

// The steps of a Sequence, or the one step there is.
template <class Visit>
void for_each_step(const JsonFields& step, const char* list, const Visit& visit) {
  if (type_of(step) != "Sequence") return visit(step);
  const Json::Array* steps = step.array(list);
  if (steps == nullptr) step.fail(list, "is missing");
  for (const Json& one : *steps) visit(JsonFields(one, "a step of " + step.where()));
}

// {"type": "Prepend", "prepend": "▁"} and {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
struct Spaces {
  bool prefix = false, marked = false;
};

void read_normalizer(const JsonFields& json, Spaces& spaces) {
  const std::optional<JsonFields> normalizer = json.object("normalizer");
  if (!normalizer) return;
  for_each_step(*normalizer, "normalizers", [&](const JsonFields& step) {
    const std::string type = type_of(step);
    if (type == "Prepend" && step.text("prepend") == kSpaceMark) {
      spaces.prefix = true;
    } else if (type == "Replace") {
      const std::optional<JsonFields> pattern = step.object("pattern");
      if (!pattern || pattern->text("String") != " " || step.text("content") != kSpaceMark)
        step.unsupported("pattern", "replaces something else than spaces by U+2581");
      spaces.marked = true;
    } else {
      unsupported_step(step, type);
    }
  });
}

// Metaspace puts no mark before a text that begins with a space. SentencePiece always does, which is how the
// models were trained, so it is done here too.
// {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}
void read_pre_tokenizer(const JsonFields& json, Spaces& spaces) {
  const std::optional<JsonFields> pre = json.object("pre_tokenizer");
  if (!pre) return;
  for_each_step(*pre, "pretokenizers", [&](const JsonFields& step) {
    const std::string type = type_of(step);
    if (type != "Metaspace") unsupported_step(step, type);
    if (step.text("replacement") != kSpaceMark)
      step.unsupported("replacement", "is not U+2581, which SentencePiece has");
    if (step.flag("split").value_or(true))
      step.unsupported("split", "is true: Mistral's pieces may hold several words");
    const std::string scheme = step.text("prepend_scheme").value_or("always");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      step.fail("prepend_scheme", "is '" + excerpt(scheme) + "', which does not exist");
    spaces.marked = true;
    spaces.prefix = scheme != "never" && step.flag("add_prefix_space").value_or(true);
  });
}

int32_t token_id(const JsonFields& json, const std::string& token, const Json& value) {
  const std::optional<int64_t> id = value.integer();
  if (!id || *id < 0 || *id > kMaxTokenId)
    json.fail(token, "is no token id from 0 to " + std::to_string(kMaxTokenId));
  return int32_t(*id);
}

// {"type": "BPE", "vocab": {"<unk>": 0, ...}, "merges": [["▁", "t"], ...] or ["▁ t", ...], ...}
void read_model(const JsonFields& model, Vocab& vocab) {
  if (const std::string type = type_of(model); type != "BPE")
    model.unsupported("type", "is '" + excerpt(type) + "', but only 'BPE' runs, which Mistral 7B's are");
  if (!model.flag("byte_fallback").value_or(false))
    model.unsupported("byte_fallback",
                      "is not true: SentencePiece, unlike byte-level BPE (GPT-2, tekken), has "
                      "byte pieces for unknown characters");
  if (model.flag("ignore_merges").value_or(false))
    model.unsupported("ignore_merges", "is true, which SentencePiece does not do");
  if (model.real("dropout").value_or(0.0) != 0.0) model.unsupported("dropout", "is not 0");
  for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.text(field).value_or("").empty())
      model.unsupported(field, "is not empty, as SentencePiece has none");

  const std::optional<JsonFields> tokens = model.object("vocab");
  if (!tokens) model.fail("vocab", "is missing");
  for (const auto& [piece, value] : tokens->members()) {
    const int32_t id = token_id(*tokens, excerpt(piece), value);
    if (id < vocab.size() && vocab.types[size_t(id)] != PieceType::kUnused)
      tokens->fail(excerpt(piece), "has the id " + std::to_string(id) + " of another token");
    place_token(vocab, id, piece, byte_piece_value(piece) >= 0 ? PieceType::kByte : PieceType::kNormal);
  }
}

// [{"id": 1, "content": "<s>", "special": true, ...}]: what is matched in the text before anything is merged.
void read_added_tokens(const JsonFields& json, Vocab& vocab) {
  const Json::Array* list = json.array("added_tokens");
  if (list == nullptr) return;
  for (const Json& item : *list) {
    const JsonFields token(item, "an added token of tokenizer.json");
    const std::optional<int64_t> id = token.integer("id", 0, kMaxTokenId);
    const std::optional<std::string> content = token.text("content");
    if (!id || !content) token.fail(id ? "content" : "id", "is missing");
    const bool special = token.flag("special").value_or(false);
    for (const char* field : {"lstrip", "rstrip", "single_word"})
      if (!special && token.flag(field).value_or(false))
        token.unsupported(field, "is true for '" + excerpt(*content) + "', which SentencePiece cannot do");
    if (*id < vocab.size() && vocab.types[size_t(*id)] != PieceType::kUnused &&
        vocab.pieces[size_t(*id)] != *content)
      token.fail("content", "is '" + excerpt(*content) + "', but token " + std::to_string(*id) + " is '" +
                                excerpt(vocab.pieces[size_t(*id)]) + "'");
    place_token(vocab, int32_t(*id), *content, special ? PieceType::kControl : PieceType::kUserDefined);
  }
}

// Whether the template puts a token at that end: {"single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence":
// ...}]}
bool is_special(const Json& part) { return part.find("SpecialToken") != nullptr; }

void read_post_processor(const JsonFields& json, Vocab& vocab) {
  const std::optional<JsonFields> post = json.object("post_processor");
  if (!post) return;
  for_each_step(*post, "processors", [&](const JsonFields& step) {
    if (type_of(step) != "TemplateProcessing") return;  // the others only move offsets
    const Json::Array* single = step.array("single");
    if (single == nullptr || single->empty()) step.fail("single", "is missing or empty");
    vocab.add_bos = is_special(single->front());
    vocab.add_eos = is_special(single->back());
  });
}

}  // namespace

Vocab vocab_from_tokenizer_json(const Json& file) {
  const JsonFields json(file, "tokenizer.json");
  const std::optional<JsonFields> model = json.object("model");
  if (!model) json.fail("model", "is missing");
  Vocab vocab;
  Spaces spaces;
  read_pre_tokenizer(json, spaces);  // first, as it names byte-level BPE best
  read_normalizer(json, spaces);
  read_model(*model, vocab);
  if (!spaces.marked) json.unsupported("normalizer", "leaves spaces as they are, as Mistral's do not");
  vocab.add_space_prefix = spaces.prefix;
  read_added_tokens(json, vocab);
  read_post_processor(json, vocab);

  vocab.bos = find_token(vocab, "<s>");
  vocab.eos = find_token(vocab, "</s>");
  vocab.unk = find_token(vocab, model->text("unk_token").value_or("<unk>"));
  if (vocab.unk >= 0) vocab.types[size_t(vocab.unk)] = PieceType::kUnknown;
  const Json::Array* merges = model->array("merges");
  if (merges == nullptr) model->fail("merges", "is missing");
  score_by_merges(*merges, vocab);
  return vocab;
}

}  // namespace maestrale
