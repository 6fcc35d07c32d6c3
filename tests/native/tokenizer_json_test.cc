// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: files made of the published SentencePiece models in the ways transformers makes them give
// the reference ids; files of other tokenizers and damaged ones are refused.
#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "base/error.h"
#include "base/utf8.h"
#include "check.h"
#include "expect_error.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/spm_vocab.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    char code[8];
    std::snprintf(code, sizeof code, "\\u%04x", unsigned(uint8_t(c)));
    if (c == '"' || c == '\\' || (uint8_t(c) < 0x20))
      out += code;
    else
      out += c;
  }
  return out + "\"";
}

size_t characters(const std::string& text) {
  return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (uint8_t(c) & 0xc0) != 0x80; }));
}

struct Merge {
  std::string left, right;
  float score;
};

// All splits of all pieces, those of the best piece first. transformers sorts equal scores in two ways, by
// version: as the pieces come, or by the lengths of the halves.
std::vector<Merge> merges_of(const Vocab& vocab, bool by_length) {
  std::unordered_set<std::string> texts;
  for (int32_t id = 0; id < vocab.size(); ++id)
    if (vocab.types[size_t(id)] == PieceType::kNormal) texts.insert(vocab.pieces[size_t(id)]);
  std::vector<Merge> merges;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const std::string& piece = vocab.pieces[size_t(id)];
    if (texts.count(piece) == 0) continue;
    for (size_t at = utf8_character(piece); at < piece.size();
         at += utf8_character(std::string_view(piece).substr(at)))
      if (texts.count(piece.substr(0, at)) != 0 && texts.count(piece.substr(at)) != 0)
        merges.push_back({piece.substr(0, at), piece.substr(at), vocab.scores[size_t(id)]});
  }
  std::stable_sort(merges.begin(), merges.end(), [&](const Merge& a, const Merge& b) {
    if (a.score != b.score || !by_length) return a.score > b.score;
    return std::pair(characters(a.left), characters(a.right)) >
           std::pair(characters(b.left), characters(b.right));
  });
  return merges;
}

const std::string kMetaspace =
    R"("normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":false})";
const std::string kPrepend =
    R"("normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},)"
    R"({"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":null)";
const std::string kTemplate =
    R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},)"
    R"({"Sequence":{"id":"A","type_id":0}}],"pair":[]})";

std::string tokenizer_json(const Vocab& vocab, bool newer) {
  std::string pieces, added, list;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    const PieceType type = vocab.types[size_t(id)];
    const std::string text = json_text(vocab.pieces[size_t(id)]), number = std::to_string(id);
    pieces += (id == 0 ? "" : ",") + text + ":" + number;
    if (type == PieceType::kNormal || type == PieceType::kByte) continue;
    added += (added.empty() ? "" : ",") + std::string(R"({"id":)") + number + R"(,"content":)" + text +
             R"(,"special":)" + (type == PieceType::kUserDefined ? "false" : "true") + "}";
  }
  for (const Merge& merge : merges_of(vocab, newer)) {
    if (!list.empty()) list += ",";
    list += newer ? "[" + json_text(merge.left) + "," + json_text(merge.right) + "]"
                  : json_text(merge.left + " " + merge.right);
  }
  return R"({"version":"1.0","added_tokens":[)" + added + "]," + (newer ? kMetaspace : kPrepend) + "," +
         kTemplate + R"(,"model":{"type":"BPE","dropout":null,"unk_token":"<unk>","fuse_unk":true,)" +
         R"("byte_fallback":true,"vocab":{)" + pieces + R"(},"merges":[)" + list + "]}}";
}

void check_published(const std::string& model, const std::string& cases, bool newer) {
  Vocab source = vocab_from_spm(read_vector_file("tokenizers/" + model));
  Vocab vocab = vocab_from_tokenizer_json(Json::parse(tokenizer_json(source, newer)));
  finish_vocab(vocab);
  CHECK(vocab.pieces == source.pieces && vocab.types == source.types);
  CHECK(vocab.bos == 1 && vocab.eos == 2 && vocab.unk == 0 && vocab.add_bos && !vocab.add_eos);
  const Tokenizer tokenizer(std::move(vocab));
  finish_vocab(source);
  const Tokenizer reference(std::move(source));
  const Json file = load_json("tokenizers/" + cases);
  CHECK_EQ(file.find("encode")->array()->size(), 776u);
  for (const Json& item : *file.find("encode")->array()) {
    const std::string& text = *item.find("text")->string();
    CHECK_EQ(show(tokenizer.encode(text)), show(json_numbers<int32_t>(*item.find("ids"))));
  }
  for (size_t spaces = 1; spaces < 70; ++spaces)
    for (const std::string& text : {std::string(spaces, ' '), "a" + std::string(spaces, ' ') + "b"})
      CHECK_EQ(show(tokenizer.encode(text)), show(reference.encode(text)));
}

// <unk> <s> </s>, the bytes, "a" "b" "ab", with changes.
struct Small {
  std::string steps = kMetaspace, type = "BPE", fallback = "true", merges = R"(["a","b"])", more, added,
              model = "";
  std::string text() const {
    const Vocab vocab = tiny_vocab({"a", "b", "ab", "▁"});
    std::string pieces;
    for (int32_t id = 0; id < vocab.size(); ++id)
      pieces += json_text(vocab.pieces[size_t(id)]) + ":" + std::to_string(id) + ",";
    return R"({"added_tokens":[)" + added + "]," + steps + R"(,"model":{"type":")" + type +
           R"(","byte_fallback":)" + fallback + model + R"(,"vocab":{)" + more +
           pieces.substr(0, pieces.size() - 1) + R"(},"merges":[)" + merges + "]}}";
  }
};

void refuse(const std::string& text, ErrorCode code, const std::string& words) {
  expect_error(text.substr(0, 80), code, words, [&] {
    Vocab vocab = vocab_from_tokenizer_json(Json::parse(text));
    finish_vocab(vocab);
  });
}

}  // namespace

TEST("tokenizer_json: reference ids of the published vocabularies, older files") {
  check_published("tokenizer.model.v1", "v1.vectors.json", false);
  check_published("tokenizer.model.v3", "v3.vectors.json", false);
}

TEST("tokenizer_json: reference ids of the published vocabularies, newer files") {
  check_published("tokenizer.model.v1", "v1.vectors.json", true);
  check_published("tokenizer.model.v3", "v3.vectors.json", true);
}

TEST("tokenizer_json: fields") {
  const Vocab vocab = vocab_from_tokenizer_json(Json::parse(Small().text()));
  CHECK_EQ(vocab.size(), 263);
  CHECK(vocab.types[0] == PieceType::kUnknown && vocab.types[3] == PieceType::kByte);
  CHECK(vocab.add_space_prefix && vocab.add_bos);
  CHECK(vocab.scores[261] == 0.0f);
  Small never;
  never.steps =
      R"("pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"never","split":false},)"
      R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}]})";
  const Vocab bare = vocab_from_tokenizer_json(Json::parse(never.text()));
  CHECK(!bare.add_space_prefix && !bare.add_bos);
  Small added;
  added.added = R"({"id":1,"content":"<s>","special":true},{"id":265,"content":"<|im_end|>","special":true},)"
                R"({"id":266,"content":"[REF]","special":false})";
  const Vocab more = vocab_from_tokenizer_json(Json::parse(added.text()));
  CHECK_EQ(more.size(), 267);
  CHECK(more.types[1] == PieceType::kControl && more.types[264] == PieceType::kUnused);
  CHECK(more.types[265] == PieceType::kControl && more.types[266] == PieceType::kUserDefined);
}

TEST("tokenizer_json: tokenizers of another kind are refused by name") {
  const auto with = [](auto change) {
    Small small;
    change(small);
    return small.text();
  };
  using enum ErrorCode;
  refuse(with([](Small& s) { s.type = "Unigram"; }), kModelUnsupported, "'Unigram', but only 'BPE'");
  refuse(with([](Small& s) { s.type = "WordPiece"; }), kModelUnsupported, "'WordPiece'");
  refuse(with([](Small& s) { s.fallback = "false"; }), kModelUnsupported, "(GPT-2, tekken)");
  refuse(with([](Small& s) { s.model = R"(,"ignore_merges":true)"; }), kModelUnsupported, "'ignore_merges'");
  refuse(with([](Small& s) { s.model = R"(,"dropout":0.1)"; }), kModelUnsupported, "'dropout'");
  refuse(with([](Small& s) { s.model = R"(,"end_of_word_suffix":"</w>")"; }), kModelUnsupported,
         "'end_of_word_suffix'");
  refuse(
      with([](Small& s) {
        s.steps =
            R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split"},{"type":"ByteLevel"}]})";
      }),
      kModelUnsupported, "is 'Split', as Mistral 7B's SentencePiece tokenizers have none; byte-level BPE");
  refuse(with([](Small& s) { s.steps = R"("normalizer":{"type":"NFKC"})"; }), kModelUnsupported, "'NFKC'");
  refuse(with([](Small& s) { s.steps = R"("normalizer":null)"; }), kModelUnsupported, "leaves spaces");
  refuse(with([](Small& s) { s.steps = R"("pre_tokenizer":{"type":"Metaspace","replacement":"▁"})"; }),
         kModelUnsupported, "'split'");
  refuse(with([](Small& s) {
           s.steps = R"("normalizer":{"type":"Replace","pattern":{"Regex":" "},"content":"▁"})";
         }),
         kModelUnsupported, "something else than spaces");
  refuse(with([](Small& s) { s.merges = ""; }), kModelUnsupported, "in 1 ways, of which 0 are listed");
  refuse(with([](Small& s) { s.merges = R"(["a","b"],["a","b"])"; }), kModelUnsupported,
         "of which 2 are listed");
  refuse(with([](Small& s) { s.added = R"({"id":263,"content":"<x>","special":false,"rstrip":true})"; }),
         kModelUnsupported, "'rstrip'");
}

TEST("tokenizer_json: merges that no SentencePiece model gives") {
  Small small;
  small.more = R"("c":263,"abc":264,"bc":265,)";
  small.merges = R"(["a","b"],["b","c"],["ab","c"],["a","bc"])";
  CHECK_EQ(vocab_from_tokenizer_json(Json::parse(small.text())).scores[264], -2.0f);
  // "abc" on both sides of "bc": no scores give that order, and the lengths do not descend.
  small.merges = R"(["a","b"],["a","bc"],["b","c"],["ab","c"])";
  refuse(small.text(), ErrorCode::kModelUnsupported, "mix pieces that have no equal scores");
  small.more = "\"" + std::string(20000, 'x') + "\":263,";
  refuse(small.text(), ErrorCode::kModelFormat, "is no token");
  small.merges = R"(["a","b"])";
  refuse(small.text(), ErrorCode::kModelUnsupported, "longer than those of any published one");
}

TEST("tokenizer_json: damaged files") {
  using enum ErrorCode;
  const auto with = [](auto change) {
    Small small;
    change(small);
    return small.text();
  };
  refuse("[]", kModelFormat, "tokenizer.json holds no JSON object");
  refuse("{}", kModelFormat, "'model' of tokenizer.json is missing");
  refuse(R"({"model":{"type":"BPE","byte_fallback":true}})", kModelFormat, "'vocab'");
  refuse(R"({"model":{"type":7}})", kModelFormat, "'type'");
  refuse(R"({"pre_tokenizer":{"type":"Sequence"},"model":{}})", kModelFormat, "'pretokenizers'");
  refuse(with([](Small& s) { s.more = R"("z":1,)"; }), kModelFormat, "has the id 1 of another token");
  refuse(with([](Small& s) { s.more = R"("z":-1,)"; }), kModelFormat, "is no token id");
  refuse(with([](Small& s) { s.more = R"("z":99999999999,)"; }), kModelFormat, "is no token id");
  refuse(with([](Small& s) { s.more = R"("":263,)"; }), kModelFormat, "token 263 is empty");
  refuse(with([](Small& s) { s.added = R"({"id":1,"content":"<x>"})"; }), kModelFormat,
         "but token 1 is '<s>'");
  refuse(with([](Small& s) { s.added = R"({"content":"<x>"})"; }), kModelFormat, "'id'");
  refuse(with([](Small& s) { s.merges = R"("ab")"; }), kModelFormat, "merge 0 of tokenizer.json");
  refuse(with([](Small& s) { s.merges = R"("a b c")"; }), kModelFormat, "not two tokens");
  refuse(with([](Small& s) { s.merges = R"(["a"])"; }), kModelFormat, "not a pair");
  refuse(with([](Small& s) { s.merges = R"(["a","b"],["b","a"])"; }), kModelFormat,
         "needs 'ba', which is no token");
  refuse(with([](Small& s) { s.merges = "7"; }), kModelFormat, "not a pair");
}
