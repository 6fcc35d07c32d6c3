// SPDX-License-Identifier: Apache-2.0
// safetensors header parser: the JSON is read first, then every entry is checked by itself, then all
// byte ranges together. Sizes are overflow-checked; nothing is allocated on a tensor's word.
#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/error.h"
#include "base/json.h"

namespace maestrale {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // of the reference reader
constexpr size_t kMaxDims = 8;

struct DtypeTraits {
  SafetensorsDtype dtype;
  std::string_view name;
  uint64_t bytes;
};

constexpr DtypeTraits kDtypes[] = {
    {SafetensorsDtype::kBool, "BOOL", 1},       {SafetensorsDtype::kU8, "U8", 1},
    {SafetensorsDtype::kI8, "I8", 1},           {SafetensorsDtype::kF8_E4M3, "F8_E4M3", 1},
    {SafetensorsDtype::kF8_E5M2, "F8_E5M2", 1}, {SafetensorsDtype::kI16, "I16", 2},
    {SafetensorsDtype::kU16, "U16", 2},         {SafetensorsDtype::kF16, "F16", 2},
    {SafetensorsDtype::kBF16, "BF16", 2},       {SafetensorsDtype::kI32, "I32", 4},
    {SafetensorsDtype::kU32, "U32", 4},         {SafetensorsDtype::kF32, "F32", 4},
    {SafetensorsDtype::kF64, "F64", 8},         {SafetensorsDtype::kI64, "I64", 8},
    {SafetensorsDtype::kU64, "U64", 8},
};

const DtypeTraits& dtype_traits(SafetensorsDtype dtype) { return kDtypes[size_t(dtype)]; }

// Names come from the file: shortened, so that a message stays a sentence.
std::string quoted(std::string_view name) {
  constexpr size_t kMax = 96;
  std::string text = "'";
  text.append(name.substr(0, kMax));
  text += name.size() > kMax ? "...'" : "'";
  return text;
}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorCode::kModelFormat, "safetensors: " + message);
}

[[noreturn]] void fail_tensor(const std::string& name, const std::string& problem) {
  fail("tensor " + quoted(name) + " " + problem);
}

SafetensorsDtype parse_dtype(const std::string& name, const Json& entry) {
  const Json* field = entry.find("dtype");
  const std::string* text = field ? field->string() : nullptr;
  if (!text) fail_tensor(name, "has no dtype");
  for (const DtypeTraits& traits : kDtypes)
    if (traits.name == *text) return traits.dtype;
  throw Error(ErrorCode::kModelUnsupported, "safetensors: tensor " + quoted(name) + " has the dtype " +
                                                quoted(*text) + ", which is not read");
}

// A JSON array of non-negative integers.
std::vector<uint64_t> parse_sizes(const std::string& name, const Json& entry, const char* key) {
  const Json* field = entry.find(key);
  const Json::Array* array = field ? field->array() : nullptr;
  if (!array) fail_tensor(name, std::string("has no array '") + key + "'");
  if (array->size() > kMaxDims)
    fail_tensor(name, std::string("has ") + std::to_string(array->size()) + " elements in '" + key +
                          "', more than " + std::to_string(kMaxDims));
  std::vector<uint64_t> sizes;
  for (const Json& element : *array) {
    const std::optional<int64_t> size = element.integer();
    if (!size || *size < 0)
      fail_tensor(name,
                  std::string("has an element in '") + key + "' that is not an integer from 0 to 2^63-1");
    sizes.push_back(uint64_t(*size));
  }
  return sizes;
}

SafetensorsTensor parse_tensor(const std::string& name, const Json& entry, uint64_t data_start,
                               uint64_t data_size) {
  SafetensorsTensor tensor;
  tensor.name = name;
  if (!entry.object()) fail_tensor(name, "is not described by a JSON object");
  tensor.dtype = parse_dtype(name, entry);
  tensor.shape = parse_sizes(name, entry, "shape");
  const std::vector<uint64_t> range = parse_sizes(name, entry, "data_offsets");
  if (range.size() != 2 || range[0] > range[1])
    fail_tensor(name, "has data_offsets that are not a begin and an end");
  const std::string range_text = "bytes " + std::to_string(range[0]) + " to " + std::to_string(range[1]);
  if (range[1] > data_size)
    fail_tensor(
        name, "lies at " + range_text + ", but the file has " + std::to_string(data_size) + " bytes of data");
  uint64_t bytes = dtype_bytes(tensor.dtype);
  for (uint64_t size : tensor.shape)
    if (__builtin_mul_overflow(bytes, size, &bytes))
      fail_tensor(name, "has a shape whose size in bytes exceeds 64 bits");
  if (bytes != range[1] - range[0])
    fail_tensor(name,
                "lies at " + range_text + ", but dtype and shape give " + std::to_string(bytes) + " bytes");
  tensor.offset = data_start + range[0];
  tensor.bytes = bytes;
  return tensor;
}

// `tensors` by ascending offset must cover [data_start, file_size) exactly once.
void check_tiling(const std::vector<SafetensorsTensor>& tensors, uint64_t data_start, uint64_t file_size) {
  uint64_t end = data_start;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.offset != end)
      fail_tensor(tensor.name, "begins at byte " + std::to_string(tensor.offset) +
                                   " of the file, but the data before it " +
                                   (tensor.offset < end ? "overlaps it up to byte " : "ends at byte ") +
                                   std::to_string(end));
    end += tensor.bytes;
  }
  if (end != file_size)
    fail("the file is " + std::to_string(file_size) + " bytes long, but its tensors end at byte " +
         std::to_string(end));
}

std::map<std::string, std::string> parse_metadata(const Json& json) {
  if (!json.object()) fail("__metadata__ is not a JSON object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : *json.object()) {
    if (!value.string()) fail("the value of " + quoted(key) + " in __metadata__ is not a string");
    metadata.emplace(key, *value.string());
  }
  return metadata;
}

std::string_view header_text(std::span<const std::byte> file, uint64_t file_size) {
  if (file_size < 8 || file.size() < 8)
    fail("the file is " + std::to_string(file_size) + " bytes long, too short for a header");
  uint64_t size;
  std::memcpy(&size, file.data(), 8);
  if (size > kMaxHeaderBytes)
    fail("the header claims " + std::to_string(size) + " bytes, more than the limit of " +
         std::to_string(kMaxHeaderBytes) + "; perhaps this is no safetensors file");
  if (size > std::min<uint64_t>(file_size, file.size()) - 8)
    fail("the header claims " + std::to_string(size) + " bytes, but the file has " +
         std::to_string(file_size));
  return {reinterpret_cast<const char*>(file.data()) + 8, size_t(size)};
}

}  // namespace

std::string_view dtype_name(SafetensorsDtype dtype) { return dtype_traits(dtype).name; }
uint64_t dtype_bytes(SafetensorsDtype dtype) { return dtype_traits(dtype).bytes; }

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> file, uint64_t file_size) {
  const std::string_view text = header_text(file, file_size);
  const uint64_t data_start = 8 + text.size();
  const Json header = [&] {
    try {
      return Json::parse(text, {.depth = 8, .values = 1'000'000});
    } catch (const Error& error) {
      fail("the header is " + error.message());
    }
  }();
  if (!header.object()) fail("the header is not a JSON object");

  SafetensorsFile result;
  for (const auto& [name, entry] : *header.object()) {
    if (name == "__metadata__")
      result.metadata_ = parse_metadata(entry);
    else
      result.tensors_.push_back(parse_tensor(name, entry, data_start, file_size - data_start));
  }
  // Empty tensors first among those that begin at the same byte, so that they leave the tiling intact.
  std::sort(result.tensors_.begin(), result.tensors_.end(), [](const auto& a, const auto& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  check_tiling(result.tensors_, data_start, file_size);
  for (size_t i = 0; i < result.tensors_.size(); ++i) result.index_.emplace(result.tensors_[i].name, i);
  return result;
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

}  // namespace maestrale
