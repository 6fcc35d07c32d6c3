// SPDX-License-Identifier: Apache-2.0
// The tokenizer against the published vocabularies (expected ids from sentencepiece 0.2.2), against
// hostile texts and against damaged vocabularies.
#include <chrono>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"
#include "tokenizer/sentencepiece.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

void check_vectors(const std::string& version, const std::string& file) {
  const Tokenizer& tokenizer = published_tokenizer(version);
  const Json cases = load_json("tokenizers/" + file);
  const Json::Array& encode = *cases.find("encode")->array();
  CHECK_EQ(encode.size(), 776u);
  for (const Json& item : encode) {
    const std::string& text = *item.find("text")->string();
    const std::string got = show(tokenizer.encode(text));
    if (got != show(json_numbers<int32_t>(*item.find("ids"))))
      fail(__FILE__, __LINE__, "encode of " + text + ": " + got);
  }
  const Json::Array& decode = *cases.find("decode")->array();
  CHECK_EQ(decode.size(), 250u);
  for (const Json& item : decode)
    CHECK_EQ(tokenizer.decode(json_numbers<int32_t>(*item.find("ids"))), *item.find("text")->string());
}

struct Example {
  std::string text;
  std::vector<int32_t> ids;
};

void check_examples(const std::string& version, const std::vector<Example>& examples) {
  for (const Example& example : examples)
    CHECK_EQ(show(published_tokenizer(version).encode(example.text)), show(example.ids));
}

// Instrumented builds take many times as long; they are not about speed.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlowdown = 20.0;
#else
constexpr double kSlowdown = 1.0;
#endif

double seconds_to_encode(const std::string& text, std::vector<int32_t>& ids) {
  const auto start = std::chrono::steady_clock::now();
  ids = published_tokenizer("v0.1").encode(text);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string decode(std::vector<int32_t> ids, DecodeOptions options = {}) {
  return published_tokenizer("v0.1").decode(ids, options);
}

void check_damaged(void (*damage)(Vocab&), const std::string& said) {
  Vocab vocab = tiny_vocab({"a", "b", "ab"});
  finish_vocab(vocab);
  damage(vocab);
  try {
    finish_vocab(vocab);
  } catch (const Error& error) {
    CHECK_EQ(error_code_name(error.code()), std::string("ERR_MODEL_FORMAT"));
    if (error.message().find(said) == std::string::npos) fail(__FILE__, __LINE__, error.message());
    return;
  }
  fail(__FILE__, __LINE__, "accepted: " + said);
}

}  // namespace

TEST("tokenizer: 1026 reference cases of the 32000-token vocabulary") {
  check_vectors("v0.1", "v1.vectors.json");
}
TEST("tokenizer: 1026 reference cases of the 32768-token vocabulary") {
  check_vectors("v0.3", "v3.vectors.json");
}

TEST("tokenizer: worked examples of the 32000-token vocabulary") {
  check_examples("v0.1",
                 {{"", {}},
                  {"Hello world", {22557, 1526}},
                  {" Hello world", {28705, 22557, 1526}},
                  {"Hello  world", {22557, 28705, 1526}},
                  {"hello", {6312, 28709}},
                  {"The quick brown fox jumps over the lazy dog.",
                   {415, 2936, 9060, 285, 1142, 461, 10575, 754, 272, 17898, 3914, 28723}},
                  {"[INST] Hi [/INST]", {733, 16289, 28793, 15359, 733, 28748, 16289, 28793}},
                  {"</s>", {1867, 28713, 28767}},
                  {"<s>", {523, 28713, 28767}},
                  {"<unk>", {523, 2060, 28767}},
                  {"<0x41>", {523, 28734, 28744, 28781, 28740, 28767}},
                  {"\n", {28705, 13}},
                  {"a\n\nb", {264, 13, 13, 28726}},
                  {"\t", {28705, 12}},
                  {"12345", {28705, 28740, 28750, 28770, 28781, 28782}},
                  {"Don't", {3189, 28742, 28707}},
                  {"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E", {28705, 29142, 29119, 30321}},
                  {"\xF0\x9F\xA6\x99", {28705, 243, 162, 169, 156}},
                  {"e\xCC\x81", {317, 28949}},
                  {"\xC2\xA0x", {28705, 29000, 28744}},
                  {"   x", {2287, 1318}},
                  {"x   ", {1318, 2287}},
                  {"def f(x):\n    return x\n", {801, 285, 28732, 28744, 1329, 13, 2287, 604, 1318, 13}},
                  {"\xE2\x96\x81"
                   "a",
                   {28705, 264}},
                  {std::string("A\0B", 3), {330, 3, 28760}},
                  {"\xEF\xBB\xBFx", {28705, 31759, 28744}},
                  {"Hello world\r\n", {22557, 1526, 28801, 13}},
                  {"Hi \xF0\x9F\xA6\x99 there", {15359, 28705, 243, 162, 169, 156, 736}},
                  {"           grabbed", {17422, 13300}},
                  {"\ttabs\t\t\t\tout here", {28705, 12, 24856, 12, 12, 12, 12, 406, 1236}},
                  {"ax\n####\nboo", {6056, 13, 2000, 13, 1798, 28709}}});
}

TEST("tokenizer: worked examples of the 32768-token vocabulary") {
  check_examples("v0.3", {{"Hello world", {23325, 2294}},
                          {"\n", {29473, 781}},
                          {"[INST] Hi [/INST]", {1501, 17057, 29561, 16127, 1501, 29516, 17057, 29561}},
                          {"Don't", {3957, 29510, 29475}},
                          {"x   ", {2086, 3055}}});
}

TEST("tokenizer: user-defined pieces are found in text and never merged") {
  // The GGUF file types [REFERENCE_DOC_19..0] as normal, as published files do; the original
  // SentencePiece model says user-defined.
  Vocab vocab = load_vocab("tokenizers/vocab-only-v0.3.gguf");
  for (size_t id = 751; id <= 770; ++id) vocab.types[id] = PieceType::kUserDefined;
  const Tokenizer tokenizer(std::move(vocab));
  CHECK_EQ(show(tokenizer.encode("[REFERENCE_DOC_0]")), "29473 770 ");
  CHECK_EQ(show(tokenizer.encode("a [REFERENCE_DOC_3] b")), "1032 29473 767 1055 ");
  CHECK_EQ(show(tokenizer.encode("[REFERENCE_DOC_11]")), "29473 759 ");
  CHECK_EQ(tokenizer.decode(tokenizer.encode("a [REFERENCE_DOC_3] b")), "a [REFERENCE_DOC_3] b");
}

TEST("tokenizer: runs of spaces, 1 to 40") {
  // 1 to 14 and 16 spaces are single pieces, 15 is not; joining the leftmost pair first is greedy.
  const std::vector<int32_t> of = {0,    28705, 259,   2287, 260, 355,  428, 5390, 273,
                                   2600, 756,   17422, 558,  569, 1417, -1,  359};
  for (size_t n = 1; n <= 40; ++n) {
    std::vector<int32_t> expected;
    for (size_t left = n; left > 0;) {
      const size_t take = left >= 16 ? 16 : left == 15 ? 14 : left;
      expected.push_back(of[take]);
      left -= take;
    }
    CHECK_EQ(show(published_tokenizer("v0.1").encode(std::string(n - 1, ' ') + "\n")),
             show(expected) + "13 ");
  }
}

TEST("tokenizer: broken UTF-8 reads as one U+FFFD a byte") {
  const Tokenizer& tokenizer = published_tokenizer("v0.1");
  const auto as_replaced = [&](const std::string& broken, size_t bytes) {
    std::string replaced = "a";
    for (size_t i = 0; i < bytes; ++i) replaced += kReplacement;
    CHECK_EQ(show(tokenizer.encode("a" + broken + "b")), show(tokenizer.encode(replaced + "b")));
  };
  as_replaced("\xFF", 1);
  as_replaced("\x80", 1);
  as_replaced("\xE2\x96", 2);
  as_replaced("\xC0\xAF", 2);          // overlong
  as_replaced("\xE0\x80\xAF", 3);      // overlong
  as_replaced("\xED\xA0\x80", 3);      // surrogate
  as_replaced("\xF4\x90\x80\x80", 4);  // above U+10FFFF
  as_replaced("\xF5\x80\x80\x80", 4);
}

TEST("tokenizer: special tokens only when asked for") {
  const Tokenizer& v1 = published_tokenizer("v0.1");
  const Tokenizer& v3 = published_tokenizer("v0.3");
  const EncodeOptions special{.parse_special = true}, both{.add_bos = true, .parse_special = true};
  CHECK_EQ(show(v1.encode("Hello world", {.add_bos = true})), "1 22557 1526 ");
  CHECK_EQ(show(v1.encode("<s>[INST] Hi [/INST]Hello</s> [INST] Bye [/INST]", special)),
           "1 733 16289 28793 15359 733 28748 16289 28793 16230 2 28705 733 16289 28793 2463 28706 733 28748 "
           "16289 28793 ");
  const std::string chat = "<s>[INST] Hi[/INST] Hello</s>[INST] Bye[/INST]";
  const std::string ids = "1 3 29473 16127 4 29473 23325 2 3 29473 3231 29474 4 ";
  CHECK_EQ(show(v3.encode(chat, special)), ids);
  CHECK_EQ(show(v3.encode(chat, both)), ids);  // the BOS token is not doubled
  CHECK_EQ(show(v3.encode("</s>", both)), "1 2 ");
  for (const int32_t id : v3.encode("<s>[INST] x [/INST]</s><unk>[TOOL_CALLS]<0x41>")) CHECK(id > 770);
}

TEST("tokenizer: segments are encoded on their own") {
  const Tokenizer& tokenizer = published_tokenizer("v0.3");
  const std::vector<PromptSegment> segments = {1, 3, "Hi", 4, "Hello", 2, 3, "Bye", 4, ""};
  CHECK_EQ(show(tokenizer.encode_segments(segments)), "1 3 16127 4 23325 2 3 3231 29474 4 ");
  const std::vector<PromptSegment> injected = {3, "[/INST]</s>", 4};
  for (const int32_t id : tokenizer.encode_segments(injected)) CHECK(id == 3 || id == 4 || id > 770);
  const std::vector<PromptSegment> outside = {32768};
  CHECK_THROWS(tokenizer.encode_segments(outside), ErrorCode::kInvalidArg);
}

TEST("tokenizer: decoding strips one leading space, once") {
  CHECK_EQ(decode({415}), "The");
  CHECK_EQ(decode({1, 415}), "The");
  CHECK_EQ(decode({2, 415}), "The");
  CHECK_EQ(decode({28705, 415}), " The");
  CHECK_EQ(decode({259}), " ");
  CHECK_EQ(decode({13, 415}), "\n The");
  CHECK_EQ(decode({243, 162}), "\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK_EQ(decode({243, 162, 169, 156}), "\xF0\x9F\xA6\x99");
  CHECK_EQ(decode({243, 162, 1, 169, 156}).size(), 12u);  // the control token ends the byte run
  CHECK_EQ(decode({0}), " \xE2\x81\x87 ");
  CHECK_EQ(decode({415}, {.strip_leading_space = false}), " The");
  CHECK_EQ(decode({1, 415, 2}, {.special_as_text = true}), "<s> The</s>");
  CHECK_THROWS(decode({32000}), ErrorCode::kInvalidArg);
  CHECK_THROWS(decode({-1}), ErrorCode::kInvalidArg);
}

TEST("tokenizer: large texts take bounded time") {
  std::vector<int32_t> ids;
  std::string prose;
  while (prose.size() < 1'000'000) prose += "The quick brown fox jumps over the lazy dog, 42 times.\n";
  CHECK(seconds_to_encode(prose, ids) < 1.0 * kSlowdown);
  CHECK_EQ(decode(ids), prose);

  CHECK(seconds_to_encode(std::string(10'000'000, 'a'), ids) < 20.0 * kSlowdown);
  CHECK_EQ(decode(ids), std::string(10'000'000, 'a'));

  CHECK(seconds_to_encode(std::string(2'000'000, ' '), ids) < 5.0 * kSlowdown);
  CHECK_EQ(ids.size(), 125'001u);  // 2,000,001 with the one in front: 125,000 of 16 and 1

  std::string marks = "e";
  for (int i = 0; i < 500'000; ++i) marks += "\xCC\x81";
  CHECK(seconds_to_encode(marks, ids) < 5.0 * kSlowdown);
}

TEST("tokenizer: cutting between characters that never meet does not change the merges") {
  // Scores prefer (b c) over (a b); "x" meets nothing.
  Vocab vocab = tiny_vocab({"bc", "ab", "abc", "a", "b", "c", "\xE2\x96\x81"});
  finish_vocab(vocab);
  const int32_t bc = 259, a = 262, mark = 265;
  const Tokenizer tokenizer(std::move(vocab));
  CHECK_EQ(show(tokenizer.encode("abc")), show({mark, 261}));
  CHECK_EQ(show(tokenizer.encode("aabcxbc")), show({mark, a, 261, 3 + 'x', bc}));
}

TEST("tokenizer: unused pieces are passed through but never emitted") {
  Vocab vocab = tiny_vocab({"ab", "abc", "a", "b", "c", "\xE2\x96\x81"});
  vocab.types[259] = PieceType::kUnused;
  finish_vocab(vocab);
  const Tokenizer tokenizer(std::move(vocab));
  CHECK_EQ(show(tokenizer.encode("ab")), show({264, 261, 262}));
  CHECK_EQ(show(tokenizer.encode("abc")), show({264, 260}));
}

TEST("tokenizer: without a space prefix nothing is added and nothing stripped") {
  Vocab vocab = tiny_vocab({"a", "\xE2\x96\x81"});
  vocab.add_space_prefix = false;
  finish_vocab(vocab);
  const Tokenizer tokenizer(std::move(vocab));
  CHECK_EQ(show(tokenizer.encode("a a")), show({259, 260, 259}));
  CHECK_EQ(tokenizer.decode(tokenizer.encode(" a")), " a");
}

TEST("vocab: what the published files say") {
  const Vocab v1 = load_vocab("tokenizers/vocab-only-v0.1.gguf"),
              v3 = load_vocab("tokenizers/vocab-only-v0.3.gguf");
  CHECK_EQ(v1.size(), 32000);
  CHECK_EQ(v3.size(), 32768);
  CHECK_EQ(v1.byte_ids[0], 3);
  CHECK_EQ(v3.byte_ids[255], 1026);
  CHECK(v1.add_bos && !v1.add_eos && v1.add_space_prefix);
  const Tokenizer& tokenizer = published_tokenizer("v0.3");
  CHECK_EQ(tokenizer.special_tokens().at("[INST]"), 3);
  CHECK_EQ(tokenizer.special_tokens().at("[TOOL_CALLS]"), 5);
  CHECK_EQ(published_tokenizer("v0.1").special_tokens().size(), 2u);
  CHECK_EQ(tokenizer.piece(770), "[REFERENCE_DOC_0]");
}

TEST("vocab: damaged ones are refused by name") {
  check_damaged([](Vocab& v) { v.pieces.clear(), v.scores.clear(), v.types.clear(); }, "no tokens");
  check_damaged([](Vocab& v) { v.scores.pop_back(); }, "261 scores");
  check_damaged([](Vocab& v) { v.types.pop_back(); }, "261 types");
  check_damaged([](Vocab& v) { v.bos = 262; }, "BOS id 262");
  check_damaged([](Vocab& v) { v.eos = -1; }, "EOS id -1");
  check_damaged([](Vocab& v) { v.unk = 1 << 30; }, "unknown-token id");
  check_damaged([](Vocab& v) { v.pieces[260] = ""; }, "token 260 is empty");
  check_damaged([](Vocab& v) { v.pieces[260] = std::string(70'000, 'x'); }, "70000 bytes");
  check_damaged([](Vocab& v) { v.pieces[260] = "\xC3"; }, "not valid UTF-8");
  check_damaged([](Vocab& v) { v.pieces[260] = "a"; }, "token 260 repeats token 259");
  check_damaged([](Vocab& v) { v.scores[7] = std::nanf(""); }, "score of token 7");
  check_damaged([](Vocab& v) { v.scores[7] = -std::numeric_limits<float>::infinity(); }, "score of token 7");
  check_damaged([](Vocab& v) { v.pieces[5] = "<0x-1>"; }, "token 5 is typed as a byte");
  check_damaged([](Vocab& v) { v.pieces[5] = "<0xGG>"; }, "token 5 is typed as a byte");
  check_damaged([](Vocab& v) { v.pieces[13] = "<0x0b>"; }, "second token for byte 11");
  check_damaged([](Vocab& v) { v.types[13] = PieceType::kNormal; }, "no token for byte 10");
  check_damaged([](Vocab& v) { v.types[13] = PieceType(9); }, "unknown type 9");
}
