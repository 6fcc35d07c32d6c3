// SPDX-License-Identifier: Apache-2.0
// safetensors headers, sound and hostile: every defect is an Error, never a crash or a wild range.
#include "io/safetensors.h"

#include <cstring>
#include <random>

#include "base/error.h"
#include "check.h"
#include "vectors.h"

using namespace maestrale;

namespace {

std::vector<std::byte> make_file(std::string_view header, size_t data_bytes, uint64_t claimed_size) {
  std::vector<std::byte> file(8 + header.size() + data_bytes);
  std::memcpy(file.data(), &claimed_size, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  return file;
}

SafetensorsFile parse(std::string_view header, size_t data_bytes) {
  const auto file = make_file(header, data_bytes, header.size());
  return SafetensorsFile::parse(file, file.size());
}

// The Error's message, which must contain `part`.
void check_refused(std::string_view header, size_t data_bytes, std::string_view part) {
  try {
    parse(header, data_bytes);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kModelFormat);
    if (error.message().find(part) == std::string::npos)
      test::fail(__FILE__, __LINE__,
                 "the message '" + error.message() + "' does not say '" + std::string(part) + "'");
    return;
  }
  test::fail(__FILE__, __LINE__, "accepted: " + std::string(header));
}

std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view range) {
  return "\"" + std::string(name) + R"(":{"dtype":")" + std::string(dtype) + R"(","shape":)" +
         std::string(shape) + R"(,"data_offsets":)" + std::string(range) + "}";
}

}  // namespace

TEST("safetensors: a sound file") {
  const std::string header = R"({"__metadata__":{"format":"pt"},)" + entry("b", "F32", "[2,3]", "[4,28]") +
                             "," + entry("a", "BF16", "[2]", "[0,4]") + "," +
                             entry("scalar", "I64", "[]", "[28,36]") + "," +
                             entry("empty", "F16", "[0,7]", "[28,28]") + "}   ";
  const SafetensorsFile file = parse(header, 36);
  CHECK_EQ(file.tensors().size(), 4u);
  CHECK_EQ(file.tensors()[0].name, std::string("a"));
  const SafetensorsTensor& b = *file.find("b");
  CHECK(b.dtype == SafetensorsDtype::kF32);
  CHECK((b.shape == std::vector<uint64_t>{2, 3}));
  CHECK_EQ(b.offset, 8 + header.size() + 4);
  CHECK_EQ(b.bytes, 24u);
  CHECK(file.find("scalar")->shape.empty());
  CHECK_EQ(file.find("empty")->bytes, 0u);
  CHECK(file.find("c") == nullptr);
  CHECK_EQ(file.metadata().at("format"), std::string("pt"));
  CHECK(parse("{}", 0).tensors().empty());
}

TEST("safetensors: dtypes have their names and sizes") {
  const std::pair<const char*, uint64_t> dtypes[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
      {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  for (const auto& [name, bytes] : dtypes) {
    const auto file = parse("{" + entry("t", name, "[1]", "[0," + std::to_string(bytes) + "]") + "}", bytes);
    CHECK_EQ(dtype_name(file.tensors()[0].dtype), std::string_view(name));
    CHECK_EQ(dtype_bytes(file.tensors()[0].dtype), bytes);
  }
  CHECK_THROWS(parse("{" + entry("t", "F4", "[2]", "[0,1]") + "}", 1), ErrorCode::kModelUnsupported);
}

TEST("safetensors: ranges that do not tile the data") {
  const std::string a = entry("a", "U8", "[4]", "[0,4]");
  check_refused("{" + a + "," + entry("b", "U8", "[4]", "[3,7]") + "}", 7, "overlaps");
  check_refused("{" + a + "," + entry("b", "U8", "[4]", "[0,4]") + "}", 4, "overlaps");
  check_refused("{" + a + "," + entry("b", "U8", "[4]", "[5,9]") + "}", 9, "ends at byte");
  check_refused("{" + entry("a", "U8", "[4]", "[1,5]") + "}", 5, "ends at byte");
  check_refused("{" + a + "}", 5, "bytes long");
  check_refused("{" + a + "}", 3, "3 bytes of data");
  check_refused("{}", 1, "bytes long");
  check_refused("{" + entry("a", "U8", "[4]", "[0,9223372036854775807]") + "}", 4, "4 bytes of data");
  check_refused("{" + entry("a", "U8", "[4]", "[4,0]") + "}", 4, "begin and an end");
  check_refused("{" + entry("a", "U8", "[0]", "[2,2]") + "," + entry("b", "U8", "[4]", "[0,4]") + "}", 4,
                "overlaps");
}

TEST("safetensors: entries that contradict themselves") {
  check_refused("{" + entry("a", "F32", "[2]", "[0,4]") + "}", 4, "give 8 bytes");
  check_refused("{" + entry("a", "U8", "[4294967296,4294967296,2]", "[0,4]") + "}", 4, "64 bits");
  check_refused("{" + entry("a", "F64", "[2305843009213693952]", "[0,0]") + "}", 0, "64 bits");
  check_refused("{" + entry("a", "U8", "[-4]", "[0,4]") + "}", 4, "not an integer");
  check_refused("{" + entry("a", "U8", "[4.0]", "[0,4]") + "}", 4, "not an integer");
  check_refused("{" + entry("a", "U8", "[18446744073709551615]", "[0,4]") + "}", 4, "not an integer");
  check_refused("{" + entry("a", "U8", "[\"4\"]", "[0,4]") + "}", 4, "not an integer");
  check_refused("{" + entry("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") + "}", 1, "9 elements");
  check_refused("{" + entry("a", "U8", "4", "[0,4]") + "}", 4, "no array 'shape'");
  check_refused("{" + entry("a", "U8", "[4]", "[0,4,8]") + "}", 4, "begin and an end");
  check_refused(R"({"a":{"shape":[4],"data_offsets":[0,4]}})", 4, "no dtype");
  check_refused(R"({"a":{"dtype":3,"shape":[4],"data_offsets":[0,4]}})", 4, "no dtype");
  check_refused(R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", 4, "no array 'shape'");
  check_refused(R"({"a":{"dtype":"U8","shape":[4]}})", 4, "no array 'data_offsets'");
  check_refused(R"({"a":[]})", 0, "JSON object");
}

TEST("safetensors: headers that are no headers") {
  const std::string a = entry("a", "U8", "[4]", "[0,4]");
  check_refused("[]", 0, "not a JSON object");
  check_refused("", 0, "invalid JSON");
  check_refused("{" + a + "," + a + "}", 4, "twice");
  check_refused("{\"\xff\":1}", 0, "UTF-8");
  check_refused("{\"x\":" + std::string(100000, '['), 0, "nested");
  check_refused(R"({"__metadata__":{"a":1}})", 0, "not a string");
  check_refused(R"({"__metadata__":[]})", 0, "__metadata__");
  std::string bomb = R"({"a":{"shape":[0)";
  for (int i = 0; i < 1'100'000; ++i) bomb += ",0";
  check_refused(bomb + "]}}", 0, "more than 1000000 values");
}

TEST("safetensors: header lengths beyond the file") {
  for (uint64_t claimed :
       {uint64_t(3), uint64_t(100'000'000), uint64_t(100'000'001), UINT64_MAX, UINT64_MAX - 7}) {
    const auto file = make_file("{}", 0, claimed);
    CHECK_THROWS(SafetensorsFile::parse(file, file.size()), ErrorCode::kModelFormat);
  }
}

TEST("safetensors: truncated at every byte") {
  const std::string header =
      "{" + entry("a", "U8", "[4]", "[0,4]") + "," + entry("b", "F32", "[1]", "[4,8]") + "}";
  const auto file = make_file(header, 8, header.size());
  SafetensorsFile::parse(file, file.size());
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<std::byte> part(file.begin(), file.begin() + long(size));
    CHECK_THROWS(SafetensorsFile::parse(part, size), ErrorCode::kModelFormat);
  }
}

TEST("safetensors: random damage never yields a range outside the file") {
  std::vector<std::byte> file = test::read_vector_file("dequantize.vectors.safetensors");
  uint64_t header_size;
  std::memcpy(&header_size, file.data(), 8);
  CHECK_EQ(SafetensorsFile::parse(file, file.size()).tensors().size(), 24u);
  const std::span<const std::byte> head = std::span(file).first(8 + header_size);
  std::mt19937 random(3);
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> damaged(head.begin(), head.end());
    for (int n = 1 + int(random() % 3); n > 0; --n)
      damaged[random() % 4 == 0 ? random() % 8 : random() % damaged.size()] = std::byte(random());
    try {
      const SafetensorsFile parsed = SafetensorsFile::parse(damaged, file.size());
      for (const SafetensorsTensor& tensor : parsed.tensors()) {
        CHECK(tensor.offset <= file.size() && tensor.bytes <= file.size() - tensor.offset);
      }
      ++accepted;  // a changed name or a byte equal to the old one
    } catch (const Error&) {
    }
  }
  CHECK(accepted > 0 && accepted < 2000);
}
