// SPDX-License-Identifier: Apache-2.0
// GGUF headers made to hurt: each must be refused with an error that names the field and its offset.
// The cases follow the defects that were found in GGUF readers over the years.
#include <functional>
#include <vector>

#include "check.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "io/gguf.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

struct Hostile {
  const char* what;
  std::function<void(GgufBuilder&)> spoil;  // applied to tiny_llama()
  const char* words;                        // of the message
  ErrorCode code = ErrorCode::kModelFormat;
};

void refuse(const std::vector<Hostile>& cases) {
  for (const Hostile& hostile : cases) {
    GgufBuilder builder = tiny_llama();
    hostile.spoil(builder);
    const std::vector<std::byte> file = builder.build();
    const std::string message =
        expect_error(hostile.what, hostile.code, hostile.words, [&] { GgufFile::parse(file, file.size()); });
    if (message.find("(byte ") == std::string::npos)
      throw std::runtime_error(std::string(hostile.what) + ": no byte offset in: " + message);
  }
}

constexpr uint64_t kHuge[] = {0x7fffffff, 0x80000000, UINT64_MAX};
const char* const kTensor = "blk.0.attn_q.weight";

}  // namespace

TEST("gguf hostile: magic and version") {
  refuse({
      {"magic", [](auto& b) { b.magic = "GGUX"; }, "magic (byte 0) is not 'GGUF'"},
      {"version 0", [](auto& b) { b.version = 0; }, "version (byte 4) is 0"},
      {"version 1", [](auto& b) { b.version = 1; }, "version (byte 4) is 1"},
      {"version 4", [](auto& b) { b.version = 4; }, "versions 2 and 3"},
      {"version -1", [](auto& b) { b.version = 0xffffffff; }, "versions 2 and 3"},
      {"big-endian version 3", [](auto& b) { b.version = 0x03000000; }, "big-endian"},
      {"big-endian version 2", [](auto& b) { b.version = 0x02000000; }, "big-endian"},
  });
}

TEST("gguf hostile: files that are something else are named") {
  const std::pair<std::string, const char*> kFiles[] = {
      {std::string("\x80\x02}q\x00", 5), "pickle"},
      {"PK\x03\x04rest of a checkpoint", "ZIP archive"},
      {std::string("\x40\0\0\0\0\0\0\0{\"a\":", 13), "safetensors"},
      {"<!DOCTYPE html><html>", "HTML"},
      {"\n <html>", "HTML"},
      {"{\"error\":\"Entry not found\"}", "JSON"},
      {"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"},
      {std::string("tjgg\x03\0\0\0", 8), "before GGUF"},
      {"FUGG", "big-endian"},
      {"\x1f\x8b\x08\x08 gzip", "compressed"},
      {"plain text of no format", "not a GGUF file"},
  };
  for (const auto& [content, words] : kFiles) {
    const std::vector<std::byte> file = Bytes().raw(content).data;
    expect_error(content, ErrorCode::kModelFormat, words, [&] { GgufFile::parse(file, file.size()); });
  }
  expect_error("no bytes", ErrorCode::kModelFormat, "magic (byte 0) is cut off",
               [] { GgufFile::parse({}, 0); });
}

TEST("gguf hostile: counts") {
  for (const uint64_t count : kHuge)
    refuse({
        {"tensor count", [=](auto& b) { b.n_tensors = count; }, "tensor count (byte 8) is"},
        {"metadata count", [=](auto& b) { b.n_kv = count; }, "metadata count (byte 16) is"},
    });
  refuse({
      {"tensor count above the limit", [](auto& b) { b.n_tensors = 65537; }, "limit of 65536"},
      {"metadata count above the limit", [](auto& b) { b.n_kv = 65537; }, "limit of 65536"},
      {"more tensors than bytes", [](auto& b) { b.n_tensors = 65536; }, "bytes of the file remain"},
      {"more keys than bytes", [](auto& b) { b.n_kv = 65536; }, "bytes of the file remain"},
      // Fewer than there are: the rest is read as the next part of the header.
      {"one key less", [](auto& b) { b.n_kv = 11; }, "(byte"},
  });
}

TEST("gguf hostile: keys") {
  const auto with_key = [](Bytes key) {
    // The key is the first thing after the counts; its value is a u8.
    const std::vector<std::byte> file = Bytes()
                                            .raw("GGUF")
                                            .put<uint32_t>(3)
                                            .put<uint64_t>(0)
                                            .put<uint64_t>(1)
                                            .append(key)
                                            .put<uint32_t>(0)
                                            .put<uint32_t>(1)
                                            .data;
    return [file] { GgufFile::parse(file, file.size()); };
  };
  const auto refused = [&](const char* what, const char* words, Bytes key) {
    expect_error(what, ErrorCode::kModelFormat, words, with_key(std::move(key)));
  };
  refused("empty", "length of key 0 (byte 24) is 0", Bytes().string(""));
  refused("longest + 1", "is 65536", Bytes().string(std::string(65536, 'k')));
  with_key(Bytes().string(std::string(65535, 'k')))();
  for (const uint64_t length : kHuge)
    refused("length", "length of key 0 (byte 24) is", Bytes().put(length).raw("key"));
  refused("NUL", "byte 0, which is not printable ASCII", Bytes().string(std::string_view("k\0y", 3)));
  refused("invalid UTF-8", "byte 255, which", Bytes().string("k\xff"));
  refused("line feed", "byte 10, which", Bytes().string("k\ny"));
  refuse({{"duplicate", [](auto& b) { b.add("llama.block_count", 4, Bytes().put<uint32_t>(1)); },
           "is a second 'llama.block_count'"}});
}

TEST("gguf hostile: values") {
  const auto value = [](uint32_t type, Bytes bytes) {
    return [=](GgufBuilder& b) { b.set("x", type, bytes); };
  };
  const auto array = [&](uint32_t type, uint64_t count, Bytes bytes = {}) {
    return value(9, Bytes().put(type).put(count).append(bytes));
  };
  refuse({
      {"type 13", value(13, {}), "value type of 'x'"},
      {"type -1", value(0xffffffff, {}), "is 4294967295, which is no value type"},
      {"bool 2", value(7, Bytes().put<uint8_t>(2)), "value of 'x'"},
      {"bool 255", value(7, Bytes().put<uint8_t>(255)), "a bool must be 0 or 1"},
      {"array of bools", array(7, 3, Bytes().put<uint8_t>(1).put<uint8_t>(0).put<uint8_t>(9)),
       "is 9, but a bool"},
      {"nested array", array(9, 1, Bytes().put<uint32_t>(0).put<uint64_t>(1).put<uint8_t>(1)),
       "nested arrays"},
      {"element type 13", array(13, 1), "element type of 'x'"},
      {"element type -1", array(0xffffffff, 1), "is 4294967295, which is no value type"},
  });
  for (const uint64_t huge : {uint64_t{0x80000000}, uint64_t{1} << 61, (uint64_t{1} << 62) + 1, UINT64_MAX})
    refuse({
        {"string length", value(8, Bytes().put(huge).raw("text")), "string length of 'x'"},
        {"array of u8", array(0, huge), "array length of 'x'"},
        {"array of f32", array(6, huge), "array length of 'x'"},
        {"array of u64", array(10, huge), "array length of 'x'"},
        {"array of strings", array(8, huge), "array length of 'x'"},
        {"string in an array", array(8, 2, Bytes().string("a").put(huge).raw("text")),
         "length of element 1 of 'x'"},
    });
}

TEST("gguf hostile: array elements are bounded in total") {
  // Each array alone is allowed; together they would become gigabytes.
  GgufBuilder b;
  const Bytes half =
      Bytes().put<uint32_t>(0).put<uint64_t>(uint64_t{1} << 23).append({std::vector<std::byte>(1 << 23)});
  b.set("a", 9, half).set("b", 9, half);
  const std::vector<std::byte> fits = b.build();
  CHECK_EQ(GgufFile::parse(fits, fits.size()).metadata().size(), 2u);
  b.array<uint8_t>("c", 0, {1});
  const std::vector<std::byte> exceeds = b.build();
  expect_error("one more", ErrorCode::kModelFormat, "array length of 'c'",
               [&] { GgufFile::parse(exceeds, exceeds.size()); });
}

TEST("gguf hostile: tensor names and dimensions") {
  const auto spec = [](auto change) { return [=](GgufBuilder& b) { change(b.find(kTensor)); }; };
  const auto shape = [&](std::vector<uint64_t> dims) { return spec([=](TensorSpec& t) { t.shape = dims; }); };
  const auto n_dims = [&](uint32_t n) { return spec([=](TensorSpec& t) { t.n_dims = n; }); };
  refuse({
      {"name empty", spec([](auto& t) { t.name = ""; }), "length of tensor name 1"},
      {"name of 64", spec([](auto& t) { t.name = std::string(64, 'n'); }), "is 64, but must be 1 to 63"},
      {"name with NUL", spec([](auto& t) { t.name = std::string("n\0m", 3); }), "not printable ASCII"},
      {"name twice", spec([](auto& t) { t.name = "blk.0.attn_k.weight"; }),
       "is a second 'blk.0.attn_k.weight'"},
      {"0 dimensions", n_dims(0), "number of dimensions of 'blk.0.attn_q.weight'"},
      {"5 dimensions", n_dims(5), "is 5, but must be 1 to 4"},
      {"8 dimensions", n_dims(8), "is 8, but must be 1 to 4"},
      {"2^32 - 1 dimensions", n_dims(UINT32_MAX), "is 4294967295, but must be 1 to 4"},
      {"dimension 0", shape({0, 32}), "dimension 0 of 'blk.0.attn_q.weight'"},
      {"dimension 1 is 0", shape({32, 0}), "dimension 1 of 'blk.0.attn_q.weight'"},
      {"dimension -1", shape({32, UINT64_MAX}), "dimension 1 of"},
      {"dimension 2^63", shape({uint64_t{1} << 63, 1}), "dimension 0 of"},
      {"product wraps to 0", shape({uint64_t{1} << 32, uint64_t{1} << 32}), "more than 2^63 elements"},
      {"product wraps to 1024", shape({1024, (uint64_t{1} << 54) + 1, 1}), "more than 2^63 elements"},
      {"product of four", shape({65536, 65536, 65536, 65536}), "dimension 3 of"},
      {"bytes wrap", shape({uint64_t{1} << 62, 1}), "more than 2^63 bytes"},
  });
}

TEST("gguf hostile: tensor types") {
  const auto type = [](uint32_t id) { return [=](GgufBuilder& b) { b.find(kTensor).type = id; }; };
  const ErrorCode unsupported = ErrorCode::kModelUnsupported;
  refuse({
      {"IQ2_XXS", type(16), "is 16 (IQ2_XXS)", unsupported},
      {"MXFP4", type(39), "is 39 (MXFP4)", unsupported},
      {"I32", type(26), "is 26 (I32)", unsupported},
      {"removed", type(4), "is 4, which is no type this engine knows", unsupported},
      {"out of range", type(0xffffffff), "type of 'blk.0.attn_q.weight'", unsupported},
      {"row is no whole block", type(12), "must be a multiple of 256 for type Q4_K"},
      {"row of 48", [](auto& b) { b.find("blk.0.ffn_down.weight").type = 8; },
       "is 48, but must be a multiple of 32"},
  });
}

TEST("gguf hostile: tensor places") {
  const auto offset = [](uint64_t value) { return [=](GgufBuilder& b) { b.find(kTensor).offset = value; }; };
  refuse({
      {"unaligned by 1", offset(641), "must be a multiple of the alignment, 32"},
      {"unaligned by 16", offset(656), "must be a multiple of the alignment, 32"},
      {"past the end", offset(uint64_t{1} << 40), "pass the end of the file"},
      {"sum wraps", offset(0xffffffffffffff00), "pass the end of the file"},
      {"sum wraps into the header", offset(0 - uint64_t{1024}), "pass the end of the file"},
      {"same place as another", offset(0), "inside 'token_embd.weight'"},
      {"inside another", offset(32), "inside 'token_embd.weight'"},
      {"larger than the file",
       [](auto& b) {
         b.find("output.weight").shape = {32, 1 << 20};
       },
       "offset of 'output.weight'"},
      {"one row larger than the file",
       [](auto& b) {
         b.find("output.weight").shape = {32, 6};
       },
       "is the download complete"},
      {"grown over its neighbour",
       [](auto& b) {
         b.find(kTensor).shape = {32, 33};
       },
       "inside 'blk.0.attn_q.weight'"},
  });
}

TEST("gguf hostile: alignment") {
  const auto alignment = [](uint32_t value) {
    return [=](GgufBuilder& b) { b.u32("general.alignment", value); };
  };
  refuse({
      {"0", alignment(0), "value of 'general.alignment'"},
      {"1", alignment(1), "is 1, but must be a power of two from 8"},
      {"3", alignment(3), "is 3, but must be a power of two"},
      {"4", alignment(4), "is 4, but must be a power of two from 8"},
      {"48", alignment(48), "is 48, but must be a power of two"},
      {"2^21", alignment(1 << 21), "to 1048576"},
      {"2^31", alignment(uint32_t{1} << 31), "to 1048576"},
      {"u64", [](auto& b) { b.u64("general.alignment", 32); }, "must be a 32-bit unsigned integer"},
      {"string", [](auto& b) { b.string("general.alignment", "32"); }, "must be a 32-bit unsigned integer"},
      {"not that of the layout", alignment(4096), "(byte"},
  });
}

TEST("gguf hostile: a part of a split model") {
  refuse({{"split", [](auto& b) { b.set("split.count", 2, Bytes().put<uint16_t>(3)); },
           "one of 3 parts of a split model", ErrorCode::kModelUnsupported}});
  GgufBuilder whole = tiny_llama();
  whole.set("split.count", 2, Bytes().put<uint16_t>(1));
  const std::vector<std::byte> file = whole.build();
  GgufFile::parse(file, file.size());
}
