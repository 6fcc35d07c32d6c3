// SPDX-License-Identifier: Apache-2.0
// tokenizer.model: the published files against the GGUF vocabularies made from them, and damaged files.
#include "tokenizer/spm_vocab.h"

#include <cstring>

#include "base/error.h"
#include "check.h"
#include "expect_error.h"
#include "tokenizer/sentencepiece.h"
#include "tokenizer/spm_writer.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

// Fields of protobuf messages.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += char(value | 0x80);
  return out + char(value);
}
std::string number(int field, uint64_t value) { return varint(uint64_t(field) << 3) + varint(value); }
std::string bytes(int field, const std::string& value) {
  return varint(uint64_t(field) << 3 | 2) + varint(value.size()) + value;
}
std::string real(int field, float value) {
  std::string out = varint(uint64_t(field) << 3 | 5);
  out.resize(out.size() + 4);
  std::memcpy(&out[out.size() - 4], &value, 4);
  return out;
}

const std::string kTrainer = number(3, 2) + number(35, 1);
const std::string kNormalizer = number(3, 1) + number(4, 0);

std::string model(const std::string& trainer = kTrainer, const std::string& normalizer = kNormalizer,
                  const std::string& piece = bytes(1, "a") + real(2, -1.5f)) {
  return bytes(1, bytes(1, "<unk>") + number(3, 2)) + bytes(1, piece) + bytes(2, trainer) +
         bytes(3, normalizer);
}

Vocab read(const std::string& file) { return vocab_from_spm(std::as_bytes(std::span(file))); }

void refuse(const std::string& file, ErrorCode code, const std::string& words) {
  expect_error("file of " + std::to_string(file.size()) + " bytes", code, words, [&] { read(file); });
}

void check_published(const std::string& file, const std::string& gguf, const std::string& cases) {
  const auto bytes_of_file = read_vector_file("tokenizers/" + file);
  Vocab vocab = vocab_from_spm(bytes_of_file);
  finish_vocab(vocab);
  const Vocab expected = load_vocab("tokenizers/vocab-only-" + gguf + ".gguf");
  CHECK(vocab.pieces == expected.pieces);
  CHECK(vocab.scores == expected.scores);
  // The converter to GGUF makes control tokens of v3's 20 user-defined [REFERENCE_DOC_n].
  for (size_t i = 0; i < vocab.types.size(); ++i)
    if (!vocab.pieces[i].starts_with("[REFERENCE_DOC_")) CHECK(vocab.types[i] == expected.types[i]);
  CHECK(vocab.bos == expected.bos && vocab.eos == expected.eos && vocab.unk == expected.unk);
  CHECK(vocab.add_space_prefix && vocab.byte_ids == expected.byte_ids);

  const Tokenizer tokenizer(std::move(vocab));
  const Tokenizer& reference = published_tokenizer(gguf);
  for (const std::string text :
       {"", " ", "Hello world", "  two  spaces", "\xe6\xa2\xa6\xf0\x9f\x8c\xac\n\t", "</s>[INST]"})
    CHECK(tokenizer.encode(text) == reference.encode(text));
  CHECK(!load_json("tokenizers/" + cases).is_null());
}

}  // namespace

TEST("spm_vocab: the published files equal the GGUF vocabularies") {
  check_published("tokenizer.model.v1", "v0.1", "v1.vectors.json");
  check_published("tokenizer.model.v3", "v0.3", "v3.vectors.json");
}

TEST("spm_vocab: fields and defaults") {
  const Vocab vocab = read(model());
  CHECK_EQ(vocab.size(), 2);
  CHECK_EQ(vocab.pieces[1], std::string("a"));
  CHECK_EQ(vocab.scores[1], -1.5f);
  CHECK(vocab.types[0] == PieceType::kUnknown && vocab.types[1] == PieceType::kNormal);
  CHECK(vocab.add_space_prefix);
  CHECK(!read(model(kTrainer, number(3, 0) + number(4, 0))).add_space_prefix);
  CHECK(read(model(kTrainer, number(4, 0))).add_space_prefix);
  CHECK_EQ(read(model(kTrainer + number(42, 7))).eos, 7);
  CHECK_EQ(read(model() + number(99, 5) + bytes(100, "unknown fields are skipped")).size(), 2);
}

TEST("spm_vocab: what Mistral's tokenizers do not do is refused") {
  refuse(model(number(35, 1)), ErrorCode::kModelUnsupported, "BPE");  // unigram is the default
  refuse(model(number(3, 2)), ErrorCode::kModelUnsupported, "byte pieces");
  refuse(model(kTrainer + number(24, 1)), ErrorCode::kModelUnsupported, "behind words");
  refuse(model(kTrainer, number(3, 1)), ErrorCode::kModelUnsupported, "repeated spaces");
  refuse(model(kTrainer, kNormalizer + number(5, 0)), ErrorCode::kModelUnsupported, "leaves spaces");
  refuse(model(kTrainer, kNormalizer + bytes(2, "map")), ErrorCode::kModelUnsupported, "replaces characters");
}

TEST("spm_vocab: damaged files") {
  const std::string whole = model();
  for (size_t n = 0; n < whole.size(); ++n) {
    try {
      read(whole.substr(0, n));
      fail(__FILE__, __LINE__, "accepted the first " + std::to_string(n) + " bytes");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kModelFormat || error.code() == ErrorCode::kModelUnsupported);
    }
  }
  refuse("", ErrorCode::kModelFormat, "0 pieces");
  refuse(whole + "\x0b", ErrorCode::kModelFormat, "wire type that does not exist");
  refuse(whole + std::string(1, '\0'), ErrorCode::kModelFormat, "impossible number");
  refuse(whole + std::string(11, '\xff'), ErrorCode::kModelFormat, "more than 64 bits");
  refuse(whole + varint(1 << 3 | 2) + varint(UINT64_MAX), ErrorCode::kModelFormat, "a field needs");
  refuse(whole + number(1, 3), ErrorCode::kModelFormat, "wire type 0 instead of 2");
  refuse(model(kTrainer, kNormalizer, bytes(1, "a") + number(3, 9)), ErrorCode::kModelFormat,
         "unknown type 9");
  refuse(model(kTrainer + number(41, 1 << 30)), ErrorCode::kModelFormat, "no token id");
}

TEST("spm_writer: the published vocabularies come back, with what is said about encoding") {
  for (const char* version : {"v0.1", "v0.2", "v0.3"}) {
    Vocab vocab = load_vocab("tokenizers/vocab-only-" + std::string(version) + ".gguf");
    for (const bool space : {true, false}) {
      vocab.add_space_prefix = space;
      Vocab back = read(spm_model(vocab));
      CHECK(back.pieces == vocab.pieces && back.scores == vocab.scores && back.types == vocab.types);
      CHECK(back.bos == vocab.bos && back.eos == vocab.eos && back.unk == vocab.unk);
      CHECK_EQ(back.add_space_prefix, space);
      finish_vocab(back);  // sound in every other way too
    }
  }
}
