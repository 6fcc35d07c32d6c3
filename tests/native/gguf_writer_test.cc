// SPDX-License-Identifier: Apache-2.0
// Written GGUF files: what is copied keeps every byte, what is set reads back, and nothing is left of a file
// that was not finished.
#include "io/gguf_writer.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <stdexcept>

#include "base/error.h"
#include "check.h"
#include "gguf_builder.h"
#include "io/mapped_file.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::vector<std::byte> read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}

size_t files_in(const TempDir& dir) {
  return size_t(std::distance(std::filesystem::directory_iterator(dir.path("")), {}));
}

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// A value of every kind and width.
GgufBuilder every_kind() {
  GgufBuilder b;
  b.set("a.u8", 0, Bytes().put<uint8_t>(200)).set("a.i8", 1, Bytes().put<int8_t>(-3));
  b.set("a.u16", 2, Bytes().put<uint16_t>(65000)).set("a.i16", 3, Bytes().put<int16_t>(-300));
  b.u32("a.u32", 7).i32("a.i32", -7).f32("a.f32", 0.1f).boolean("a.bool", 1).string("a.string", "ab\xc3\xa9");
  b.u64("a.u64", UINT64_MAX).set("a.i64", 11, Bytes().put<int64_t>(INT64_MIN)).f64("a.f64", 0.1);
  b.strings("a.strings", {"", "x", "yy"}).floats("a.floats", {1.5f, -0.0f}).ints("a.ints", {1, -2});
  b.array<uint8_t>("a.bytes", 0, {1, 2, 3})
      .array<uint8_t>("a.bools", 7, {0, 1})
      .array<double>("a.doubles", 12, {0.1});
  return b;
}

}  // namespace

TEST("gguf_writer: copied metadata keep every byte, in order; a key that is set again keeps its place") {
  TempDir dir;
  const std::vector<std::byte> source = every_kind().u32("general.alignment", 64).build();
  const GgufFile original = GgufFile::parse(source, source.size());
  GgufMetadata metadata(original);
  metadata.set_string("a.i32", "now a text");
  metadata.erase("a.f64");
  metadata.erase_prefix("a.b");
  metadata.set_bool("new", true);
  GgufWriter(dir.path("out"), metadata, {}).commit();

  const MappedFile file(dir.path("out"));
  const GgufFile copy = GgufFile::parse(file.bytes(), file.size());
  CHECK_EQ(copy.version(), 3u);
  std::vector<std::string> expected;
  for (const auto& [key, value] : original.metadata())
    if (key != "a.f64" && !key.starts_with("a.b") && key != "general.alignment") expected.emplace_back(key);
  expected.push_back("new");
  CHECK_EQ(copy.metadata().size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) CHECK_EQ(copy.metadata()[i].first, expected[i]);
  for (size_t i = 0; i < original.metadata().size(); ++i)
    for (size_t k = 0; k < copy.metadata().size(); ++k)
      if (original.metadata()[i].first == copy.metadata()[k].first && copy.metadata()[k].first != "a.i32") {
        const auto before = original.stored_value(i), after = copy.stored_value(k);
        CHECK(std::equal(before.begin(), before.end(), after.begin(), after.end()));
      }
  CHECK_EQ(*copy.get_string("a.i32"), "now a text");
  CHECK_EQ(*copy.get_bool("new"), true);
}

TEST("gguf_writer: values of every setter read back") {
  TempDir dir;
  GgufMetadata metadata;
  const std::vector<std::string> strings{"one", "", "three"};
  const std::vector<float> floats{0.5f, -2.0f};
  const std::vector<int32_t> ints{3, -4, 5};
  metadata.set_u32("u", 4000000000u);
  metadata.set_f32("f", 0.1f);
  metadata.set_strings("s", strings);
  metadata.set_f32s("fs", floats);
  metadata.set_i32s("is", ints);
  GgufWriter(dir.path("out"), metadata, {}).commit();
  const MappedFile file(dir.path("out"));
  const GgufFile read = GgufFile::parse(file.bytes(), file.size());
  CHECK_EQ(*read.get_uint("u"), 4000000000u);
  CHECK_EQ(*read.get_float("f"), double(0.1f));
  CHECK(*read.get_strings("s") == (std::vector<std::string_view>{"one", "", "three"}));
  CHECK(*read.get_floats("fs") == (std::vector<double>{0.5, -2.0}));
  CHECK(*read.get_ints("is") == (std::vector<int64_t>{3, -4, 5}));
}

TEST("gguf_writer: tensors of odd sizes lie aligned and keep their data") {
  TempDir dir;
  const std::vector<GgufTensorPlan> plans{
      {"a", QuantType::kF32, {3}}, {"b", QuantType::kQ8_0, {32, 3}}, {"c", QuantType::kBF16, {5, 2, 2}}};
  const std::vector<size_t> sizes{12, 102, 40};
  std::vector<std::vector<std::byte>> data;
  GgufWriter writer(dir.path("out"), {}, plans);
  for (const size_t size : sizes) {
    data.emplace_back(size);
    for (size_t i = 0; i < size; ++i) data.back()[i] = std::byte(i * 7 + size);
    writer.write(std::span(data.back()).first(5));
    writer.write(std::span(data.back()).subspan(5));
  }
  const uint64_t size = writer.commit();
  const MappedFile file(dir.path("out"));
  CHECK_EQ(file.size(), size);
  const GgufFile read = GgufFile::parse(file.bytes(), file.size());
  CHECK_EQ(read.tensors().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const GgufTensor& tensor = read.tensors()[i];
    CHECK_EQ(tensor.name, plans[i].name);
    CHECK(tensor.shape == plans[i].shape);
    CHECK_EQ(tensor.offset % 32, 0u);
    const auto stored = file.bytes().subspan(size_t(tensor.offset), size_t(tensor.bytes));
    CHECK(std::equal(stored.begin(), stored.end(), data[i].begin(), data[i].end()));
  }
}

TEST("gguf_writer: too much data and too little are defects, and leave no file") {
  TempDir dir;
  const std::vector<std::byte> data(16);
  {
    GgufWriter writer(dir.path("out"), {}, {{"a", QuantType::kF32, {3}}});
    CHECK_THROWS(writer.write(data), ErrorCode::kInternal);
    CHECK_THROWS(writer.commit(), ErrorCode::kInternal);
    writer.write(std::span(data).first(12));
    CHECK_THROWS(writer.write(std::span(data).first(1)), ErrorCode::kInternal);
  }
  CHECK_EQ(files_in(dir), 0u);
}

TEST("atomic_file: what had the name keeps it until the new file is complete") {
  TempDir dir;
  const std::string path = dir.write("file", bytes_of("old"));
  {
    AtomicFile file(path);
    file.write(bytes_of("half of the new"));
    CHECK(read_all(path) == bytes_of("old"));
    CHECK_EQ(files_in(dir), 2u);
  }
  CHECK_EQ(files_in(dir), 1u);
  CHECK(read_all(path) == bytes_of("old"));

  AtomicFile file(path);
  file.write(bytes_of("new"));
  file.pad_to(5);
  CHECK_EQ(file.size(), 5u);
  file.commit();
  CHECK(read_all(path) == bytes_of(std::string("new\0\0", 5)));
  CHECK_EQ(files_in(dir), 1u);
}

TEST("atomic_file: may be given up between two writes") {
  TempDir dir;
  int writes = 0;
  try {
    AtomicFile file(dir.path("file"), [&] {
      if (++writes == 3) throw std::runtime_error("given up");
    });
    file.write(std::vector<std::byte>(size_t{64} << 20));
    CHECK(false);
  } catch (const std::runtime_error& error) {
    CHECK_EQ(std::string(error.what()), "given up");
  }
  CHECK_EQ(writes, 3);
  CHECK_EQ(files_in(dir), 0u);
}

TEST("atomic_file: a place that cannot be written is named") {
  TempDir dir;
  CHECK_THROWS(AtomicFile(dir.path("no/such/directory")), ErrorCode::kInvalidArg);
  std::filesystem::create_directory(dir.path("taken"));
  CHECK_THROWS(AtomicFile(dir.path("taken")), ErrorCode::kInvalidArg);  // not when all has been written
  CHECK_EQ(files_in(dir), 1u);
}
