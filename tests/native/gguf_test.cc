// SPDX-License-Identifier: Apache-2.0
// GGUF: what sound files contain, the typed look-ups, and two properties that hold for any bytes.
#include "io/gguf.h"

#include <filesystem>
#include <random>

#include "check.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "io/mapped_file.h"
#include "model/config.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

// The bytes at exactly their size on the heap, so that a sanitizer sees any read past them.
void parse_copy(std::span<const std::byte> bytes, uint64_t file_size) {
  const std::vector<std::byte> copy(bytes.begin(), bytes.end());
  GgufFile::parse(copy, file_size);
}

}  // namespace

TEST("gguf: metadata and tensors of a sound file") {
  GgufBuilder b = tiny_llama();
  b.version = 2;
  b.set("i8", 1, Bytes().put<int8_t>(-7)).u64("u64", UINT64_MAX).f64("f64", 0.1).boolean("yes", 1);
  const std::vector<std::byte> bytes = b.build();
  const GgufFile file = GgufFile::parse(bytes, bytes.size());
  CHECK_EQ(file.version(), 2u);
  CHECK_EQ(file.metadata().size(), 16u);
  CHECK(file.metadata().front().first == "general.architecture");
  CHECK_EQ(std::get<int64_t>(*file.find("i8")), -7);
  CHECK_EQ(*file.get_uint("u64"), UINT64_MAX);
  CHECK_EQ(*file.get_float("f64"), 0.1);
  CHECK_EQ(*file.get_float("llama.attention.layer_norm_rms_epsilon"), double(1e-5f));
  CHECK(*file.get_bool("yes"));
  CHECK(*file.get_string("general.name") == "tiny");
  CHECK(file.get_strings("tokenizer.ggml.tokens")->at(3) == "a");

  CHECK_EQ(file.tensors().size(), 12u);
  const GgufTensor& down = *file.find_tensor("blk.0.ffn_down.weight");
  CHECK(down.type == QuantType::kF32);
  CHECK_EQ(down.cols, 48);
  CHECK_EQ(down.rows, 32);
  CHECK_EQ(down.bytes, 48u * 32 * 4);
  float first;
  std::memcpy(&first, bytes.data() + down.offset, sizeof first);
  CHECK_EQ(first, 7.0f);
  CHECK(file.find_tensor("blk.1.ffn_down.weight") == nullptr);
}

TEST("gguf: arrays of every element type") {
  GgufBuilder b;
  b.array<uint8_t>("u8", 0, {0, 255}).array<int8_t>("i8", 1, {-128, 127}).array<uint16_t>("u16", 2, {65535});
  b.array<int16_t>("i16", 3, {-32768})
      .array<uint32_t>("u32", 4, {UINT32_MAX})
      .array<int32_t>("i32", 5, {INT32_MIN});
  b.array<float>("f32", 6, {0.5f, -2.0f}).array<uint8_t>("bool", 7, {1, 0}).strings("string", {"", "x"});
  b.array<uint64_t>("u64", 10, {UINT64_MAX})
      .array<int64_t>("i64", 11, {INT64_MIN})
      .array<double>("f64", 12, {1e300});
  b.array<int32_t>("empty", 5, {});
  const std::vector<std::byte> bytes = b.build();
  const GgufFile file = GgufFile::parse(bytes, bytes.size());
  using Ints = std::vector<int64_t>;
  CHECK(*file.get_ints("u8") == (Ints{0, 255}));
  CHECK(*file.get_ints("i8") == (Ints{-128, 127}));
  CHECK(*file.get_ints("u16") == Ints{65535});
  CHECK(*file.get_ints("i16") == Ints{-32768});
  CHECK(*file.get_ints("u32") == Ints{UINT32_MAX});
  CHECK(*file.get_ints("i32") == Ints{INT32_MIN});
  CHECK(*file.get_ints("i64") == Ints{INT64_MIN});
  CHECK(file.get_ints("empty")->empty());
  CHECK(*file.get_floats("f32") == (std::vector<double>{0.5, -2.0}));
  CHECK(*file.get_floats("f64") == std::vector<double>{1e300});
  CHECK(std::get<std::vector<bool>>(*file.find("bool")) == (std::vector<bool>{true, false}));
  CHECK(file.get_strings("string")->at(1) == "x");
  expect_error("u64", ErrorCode::kModelFormat, "too large", [&] { file.get_ints("u64"); });
}

TEST("gguf: look-ups tell absence from a wrong type") {
  GgufBuilder b;
  b.i32("five", 5).i32("negative", -5).f32("float", 1.0f).string("text", "5").strings("texts", {"5"});
  const std::vector<std::byte> bytes = b.build();
  const GgufFile file = GgufFile::parse(bytes, bytes.size());
  CHECK(!file.get_uint("absent") && !file.get_float("absent") && !file.get_bool("absent"));
  CHECK(!file.get_string("absent") && file.get_strings("absent") == nullptr && !file.get_ints("absent"));
  CHECK_EQ(*file.get_uint("five"), 5u);
  const auto wrong = [](const char* words, auto look_up) {
    expect_error(words, ErrorCode::kModelFormat, words, look_up);
  };
  wrong("'negative' (byte ", [&] { file.get_uint("negative"); });
  wrong("is -5, but must not be negative", [&] { file.get_uint("negative"); });
  wrong("is a floating-point number, but must be an integer", [&] { file.get_uint("float"); });
  wrong("is a signed integer, but must be a floating-point number", [&] { file.get_float("five"); });
  wrong("is a string, but must be a bool", [&] { file.get_bool("text"); });
  wrong("is an array of strings, but must be a string", [&] { file.get_string("texts"); });
  wrong("is a string, but must be an array of strings", [&] { file.get_strings("text"); });
  wrong("is a string, but must be an array of integers", [&] { file.get_ints("text"); });
  wrong("is a string, but must be an array of floating-point", [&] { file.get_floats("text"); });
}

TEST("gguf: tensors may lie in any order, with gaps, at any alignment") {
  for (const uint32_t alignment : {8u, 32u, 4096u, 1u << 20}) {
    GgufBuilder b;
    b.alignment = alignment;
    b.u32("general.alignment", alignment).tensor("second", {16}, 2.0f).tensor("first", {16}, 1.0f);
    std::vector<std::byte> bytes = b.build();  // "second" lies first
    const GgufFile in_order = GgufFile::parse(bytes, bytes.size());
    CHECK_EQ(in_order.find_tensor("first")->offset - in_order.find_tensor("second")->offset,
             std::max<uint64_t>(alignment, 64));
    const uint64_t step = in_order.find_tensor("first")->offset - in_order.find_tensor("second")->offset;
    b.find("second").offset = 2 * step;
    b.find("first").offset = 0;
    bytes.resize(bytes.size() + 2 * step);
    const std::vector<std::byte> header = b.header().data;
    std::copy(header.begin(), header.end(), bytes.begin());
    const GgufFile out_of_order = GgufFile::parse(bytes, bytes.size());
    CHECK_EQ(out_of_order.find_tensor("second")->offset - out_of_order.find_tensor("first")->offset,
             2 * step);
  }
}

TEST("gguf: truncated at every byte") {
  const std::vector<std::byte> file = tiny_llama().build();
  parse_copy(file, file.size());
  for (size_t n = 0; n < file.size(); ++n)
    expect_error("prefix of " + std::to_string(n), ErrorCode::kModelFormat, "(byte ",
                 [&] { parse_copy(std::span(file).first(n), n); });
}

TEST("gguf: the header alone suffices to parse, nothing less") {
  const std::vector<std::byte> file = tiny_llama().build();
  size_t header_bytes = tiny_llama().header().data.size();
  parse_copy(std::span(file).first(header_bytes), file.size());
  size_t shortest = 0;
  for (size_t n = header_bytes; n-- > 0;) {
    try {
      parse_copy(std::span(file).first(n), file.size());
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kModelFormat);
      shortest = std::max(shortest, n + 1);
    }
  }
  CHECK(header_bytes - shortest < 32);  // only padding may be missing
}

TEST("gguf: ten thousand mutated files parse or are refused, and never promise bytes they lack") {
  const std::vector<std::byte> sound = tiny_llama().build();
  const size_t header_bytes = tiny_llama().header().data.size();
  std::mt19937 random(20260101);
  int parsed = 0, refused = 0;
  for (int i = 0; i < 10000; ++i) {
    std::vector<std::byte> file = sound;
    const size_t at = random() % header_bytes;
    // Half of the time a single flipped bit, which is likelier to stay plausible.
    file[at] ^= random() % 2 == 0 ? std::byte(1 << random() % 8) : std::byte(1 + random() % 255);
    try {
      const GgufFile header = GgufFile::parse(file, file.size());
      for (const GgufTensor& tensor : header.tensors()) {
        CHECK(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
        CHECK_EQ(tensor.bytes, uint64_t(tensor.rows) * row_bytes(tensor.type, uint64_t(tensor.cols)));
      }
      config_from_gguf(header);
      ++parsed;
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kModelFormat || error.code() == ErrorCode::kModelUnsupported);
      ++refused;
    }
  }
  CHECK(parsed > 500 && refused > 2000);  // the mutations reach both ends
}

TEST("gguf: every test model and vocabulary parses") {
  int files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(test::kVectors)) {
    if (entry.path().extension() != ".gguf") continue;
    const MappedFile file(entry.path().string());
    const GgufFile header = GgufFile::parse(file.bytes(), file.size());
    CHECK(header.tensors().empty() == (entry.path().string().find("vocab-only") != std::string::npos));
    CHECK(config_from_gguf(header).vocab_size >= 512);
    ++files;
  }
  CHECK(files >= 21);
}
