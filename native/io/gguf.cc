// SPDX-License-Identifier: Apache-2.0
// GGUF header parser. A first pass walks the whole header and trusts nothing: counts and lengths are
// bounded by the bytes that remain, sums and products are overflow-checked, tensors must lie inside
// the file and apart from each other. Only then does a second pass allocate the metadata values.
#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "base/error.h"
#include "base/integer.h"
#include "io/byte_reader.h"

namespace maestrale {
namespace {

// Far above every published model; they bound what a header can make us allocate.
constexpr uint64_t kMaxEntries = 65536;                    // metadata keys, and tensors
constexpr uint64_t kMaxArrayElements = uint64_t{1} << 24;  // of all arrays together
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 63;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;
// The smallest entries a file can hold: key length + 1 + type + 1; name length + 1 + n_dims + 1 dim + type +
// offset.
constexpr uint64_t kMinKvBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

enum ValueType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32Value,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
  kValueTypes
};

// Bytes of a value in the file; 0 for those of variable length.
constexpr uint64_t kValueBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// A metadata entry whose bytes have been checked but not yet copied.
struct RawEntry {
  std::string_view key;
  uint32_t type;
  uint64_t offset, end;  // of the value
};

// ggml's types that this engine does not read, for a message that says more than a number.
std::string_view foreign_type_name(uint32_t id) {
  constexpr std::pair<uint32_t, std::string_view> kForeign[] = {
      {9, "Q8_1"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
      {21, "IQ3_S"}, {22, "IQ2_S"}, {24, "I8"},      {25, "I16"},    {26, "I32"},     {27, "I64"},
      {28, "F64"},   {29, "IQ1_M"}, {34, "TQ1_0"},   {35, "TQ2_0"},  {39, "MXFP4"},   {40, "NVFP4"}};
  for (const auto& [foreign, name] : kForeign)
    if (foreign == id) return name;
  return {};
}

// What a file without the GGUF magic seems to be, as the end of a sentence.
std::string looks_like(std::span<const std::byte> file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), std::min<size_t>(file.size(), 64));
  if (text.starts_with("FUGG")) return "a big-endian GGUF file; only little-endian files are read";
  if (text.starts_with("lmgg") || text.starts_with("fmgg") || text.starts_with("tjgg") ||
      text.starts_with("algg"))
    return "a GGML file of the time before GGUF; convert the original model again";
  if (text.starts_with("version https://git-lfs"))
    return "a Git LFS pointer; fetch the real file with 'git lfs pull'";
  if (text.starts_with("PK\x03\x04")) return "a ZIP archive, perhaps a PyTorch checkpoint";
  if (text.starts_with("\x80\x02") || text.starts_with("\x80\x03") || text.starts_with("\x80\x04"))
    return "a Python pickle, perhaps a PyTorch checkpoint";
  if (text.starts_with("\x1f\x8b") || text.starts_with("\x28\xb5\x2f\xfd"))
    return "a compressed file; unpack it first";
  if (text.size() > 9 && text[8] == '{' && (text[9] == '"' || text[9] == ' ')) return "a safetensors file";
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && text[first] == '<')
    return "an HTML or XML page, perhaps an error page saved in place of the model";
  if (first != std::string_view::npos && (text[first] == '{' || text[first] == '[')) return "a JSON text";
  return {};
}

uint32_t read_version(ByteReader& reader, std::span<const std::byte> file) {
  const Field magic{"magic"};
  const bool gguf = std::memcmp(reader.take(4, magic), "GGUF", 4) == 0;
  if (!gguf) {
    const std::string guess = looks_like(file);
    fail_at(0, magic,
            "is not 'GGUF': this is not a GGUF file" + (guess.empty() ? "" : "; it looks like " + guess));
  }
  const Field field{"version"};
  const uint32_t version = reader.read<uint32_t>(field);
  const std::string text = "is " + std::to_string(version);
  if (version == 1) fail_at(4, field, text + ": that format is from August 2023, convert the model again");
  if (version != 0 && (version & 0xffff) == 0)
    fail_at(4, field, text + ": the file is big-endian, only little-endian files are read");
  if (version != 2 && version != 3) fail_at(4, field, text + ", but only versions 2 and 3 are read");
  return version;
}

// A count of entries that each take at least `min_bytes` of what remains after the two counts.
uint64_t read_count(ByteReader& reader, const Field& field, uint64_t min_bytes) {
  const uint64_t start = reader.offset();
  const uint64_t count = reader.read<uint64_t>(field);
  if (count > kMaxEntries)
    fail_at(start, field,
            "is " + std::to_string(count) + ", more than the limit of " + std::to_string(kMaxEntries));
  if (count > reader.remaining() / min_bytes)
    fail_at(start, field,
            "is " + std::to_string(count) + ", but only " + std::to_string(reader.remaining()) +
                " bytes of the file remain");
  return count;
}

// Keys and tensor names: not empty, bounded, printable ASCII as the specification demands.
std::string_view read_name(ByteReader& reader, const Field& field, uint64_t max_bytes) {
  const uint64_t start = reader.offset();
  const std::string_view name = reader.read_string(field);
  if (name.empty() || name.size() > max_bytes)
    fail_at(start, field,
            "is " + std::to_string(name.size()) + ", but must be 1 to " + std::to_string(max_bytes));
  for (size_t i = 0; i < name.size(); ++i)
    if (name[i] < 0x20 || name[i] > 0x7e)
      fail_at(start + 8 + i, field,
              "is followed by a name with byte " + std::to_string(uint8_t(name[i])) +
                  ", which is not printable ASCII");
  return name;
}

void check_bools(ByteReader& reader, uint64_t count, const Field& field) {
  const uint64_t start = reader.offset();
  const std::byte* values = reader.take(count, field);
  for (uint64_t i = 0; i < count; ++i)
    if (values[i] > std::byte{1})
      fail_at(start + i, field, "is " + std::to_string(uint32_t(values[i])) + ", but a bool must be 0 or 1");
}

void check_array(ByteReader& reader, std::string_view key, uint64_t& array_elements) {
  const Field type_field{"element type", Field::kNoIndex, key},
      count_field{"array length", Field::kNoIndex, key};
  uint64_t start = reader.offset();
  const uint32_t type = reader.read<uint32_t>(type_field);
  if (type == kArray) fail_at(start, type_field, "is an array: nested arrays are not allowed");
  if (type >= kValueTypes)
    fail_at(start, type_field, "is " + std::to_string(type) + ", which is no value type");
  start = reader.offset();
  const uint64_t count = reader.read<uint64_t>(count_field);
  const uint64_t min_bytes = type == kString ? 8 : kValueBytes[type];
  if (count > reader.remaining() / min_bytes)
    fail_at(start, count_field,
            "is " + std::to_string(count) + ", but only " + std::to_string(reader.remaining()) +
                " bytes of the file remain");
  if (count > kMaxArrayElements - array_elements)
    fail_at(start, count_field,
            "is " + std::to_string(count) + ", which makes more than " + std::to_string(kMaxArrayElements) +
                " array elements in the file");
  array_elements += count;
  if (type == kString) {
    for (uint64_t i = 0; i < count; ++i) reader.read_string({"length of element", i, key});
  } else if (type == kBool) {
    check_bools(reader, count, {"array", Field::kNoIndex, key});
  } else {
    reader.take(count * kValueBytes[type], {"array", Field::kNoIndex, key});
  }
}

void check_value(ByteReader& reader, uint32_t type, std::string_view key, uint64_t& array_elements) {
  const Field field{"value", Field::kNoIndex, key};
  if (type == kString) {
    reader.read_string({"string length", Field::kNoIndex, key});
  } else if (type == kArray) {
    check_array(reader, key, array_elements);
  } else if (type == kBool) {
    check_bools(reader, 1, field);
  } else {
    reader.take(kValueBytes[type], field);
  }
}

std::vector<RawEntry> check_metadata(ByteReader& reader, uint64_t count,
                                     std::map<std::string_view, size_t>& index) {
  std::vector<RawEntry> entries;
  uint64_t array_elements = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t start = reader.offset();
    const std::string_view key = read_name(reader, {"length of key", i}, kMaxKeyBytes);
    if (!index.emplace(key, entries.size()).second)
      fail_at(start, {"key", i}, "is a second '" + std::string(key.substr(0, 96)) + "': keys must differ");
    const Field type_field{"value type", Field::kNoIndex, key};
    const uint64_t type_start = reader.offset();
    const uint32_t type = reader.read<uint32_t>(type_field);
    if (type >= kValueTypes)
      fail_at(type_start, type_field, "is " + std::to_string(type) + ", which is no value type");
    const uint64_t value_start = reader.offset();
    check_value(reader, type, key, array_elements);
    entries.push_back({key, type, value_start, reader.offset()});
  }
  return entries;
}

QuantType read_tensor_type(ByteReader& reader, std::string_view name) {
  const Field field{"type", Field::kNoIndex, name};
  const uint64_t start = reader.offset();
  const uint32_t id = reader.read<uint32_t>(field);
  if (const auto type = quant_type_from_id(id)) return *type;
  const std::string_view foreign = foreign_type_name(id);
  throw Error(ErrorCode::kModelUnsupported,
              field.describe() + " (byte " + std::to_string(start) + ") is " + std::to_string(id) +
                  (foreign.empty() ? ", which is no type this engine knows"
                                   : " (" + std::string(foreign) + "), which this engine does not run"));
}

// Leaves tensor.offset relative to the data section, as stored.
GgufTensor check_tensor(ByteReader& reader, uint64_t number) {
  GgufTensor tensor;
  tensor.name = read_name(reader, {"length of tensor name", number}, kMaxTensorNameBytes);
  const Field dims_field{"number of dimensions", Field::kNoIndex, tensor.name};
  uint64_t start = reader.offset();
  const uint32_t n_dims = reader.read<uint32_t>(dims_field);
  if (n_dims < 1 || n_dims > kMaxDims)
    fail_at(start, dims_field,
            "is " + std::to_string(n_dims) + ", but must be 1 to " + std::to_string(kMaxDims));

  const uint64_t dims_start = reader.offset();
  uint64_t items = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const Field field{"dimension", i, tensor.name};
    start = reader.offset();
    const uint64_t dim = reader.read<uint64_t>(field);
    if (dim == 0) fail_at(start, field, "is 0, but must be at least 1");
    // Both factors and the product stay below 2^63, so rows and cols fit their signed fields.
    if (dim > uint64_t(INT64_MAX) / items)
      fail_at(start, field, "is " + std::to_string(dim) + ", which makes more than 2^63 elements");
    items *= dim;
    tensor.shape.push_back(dim);
  }
  tensor.type = read_tensor_type(reader, tensor.name);
  const QuantTraits& traits = quant_traits(tensor.type);
  tensor.cols = int64_t(tensor.shape[0]);
  tensor.rows = int64_t(items / tensor.shape[0]);
  if (tensor.shape[0] % traits.items_per_block != 0)
    fail_at(dims_start, {"dimension", 0, tensor.name},
            "is " + std::to_string(tensor.shape[0]) + ", but must be a multiple of " +
                std::to_string(traits.items_per_block) + " for type " + std::string(traits.name));
  const uint64_t blocks = items / traits.items_per_block;
  if (blocks > uint64_t(INT64_MAX) / traits.bytes_per_block)
    fail_at(dims_start, {"dimension", 0, tensor.name},
            "and the others make a tensor of more than 2^63 bytes");
  tensor.bytes = blocks * traits.bytes_per_block;
  tensor.offset = reader.read<uint64_t>({"offset", Field::kNoIndex, tensor.name});
  return tensor;
}

uint64_t read_alignment(std::span<const std::byte> file, const RawEntry* entry) {
  if (entry == nullptr) return kDefaultAlignment;
  const Field field{"value", Field::kNoIndex, entry->key};
  if (entry->type != kU32)
    fail_at(entry->offset, field,
            "has value type " + std::to_string(entry->type) + ", but must be a 32-bit unsigned integer");
  const uint32_t alignment = ByteReader(file, entry->offset).read<uint32_t>(field);
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment)
    fail_at(entry->offset, field,
            "is " + std::to_string(alignment) + ", but must be a power of two from 8 to " +
                std::to_string(kMaxAlignment));
  return alignment;
}

// Makes the offsets absolute and checks that every tensor lies inside the file. `offset_fields`
// are the positions of the offsets in the header.
void place_tensors(std::vector<GgufTensor>& tensors, const std::vector<uint64_t>& offset_fields,
                   uint64_t header_end, uint64_t alignment, uint64_t file_size) {
  const uint64_t data_start = round_up(header_end, alignment);  // header_end is a real size
  for (size_t i = 0; i < tensors.size(); ++i) {
    GgufTensor& tensor = tensors[i];
    const Field field{"offset", Field::kNoIndex, tensor.name};
    const std::string text = "is " + std::to_string(tensor.offset);
    if (tensor.offset % alignment != 0)
      fail_at(offset_fields[i], field,
              text + ", but must be a multiple of the alignment, " + std::to_string(alignment));
    if (data_start > file_size || tensor.offset > file_size - data_start ||
        tensor.bytes > file_size - data_start - tensor.offset)
      fail_at(offset_fields[i], field,
              text + ": its " + std::to_string(tensor.bytes) + " bytes after byte " +
                  std::to_string(data_start) + " pass the end of the file (" + std::to_string(file_size) +
                  " bytes); is the download complete?");
    tensor.offset += data_start;
  }

  std::vector<size_t> order(tensors.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return tensors[a].offset < tensors[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = tensors[order[i - 1]];
    const GgufTensor& after = tensors[order[i]];
    if (before.offset + before.bytes > after.offset)
      fail_at(offset_fields[order[i]], {"offset", Field::kNoIndex, after.name},
              "puts the tensor at byte " + std::to_string(after.offset) + ", inside '" +
                  std::string(before.name) + "', which ends at byte " +
                  std::to_string(before.offset + before.bytes));
  }
}

// From here on the bytes have been checked.
template <class Stored>
GgufValue read_scalar(ByteReader& reader) {
  const Stored value = reader.read<Stored>({"value"});
  if constexpr (std::is_floating_point_v<Stored>)
    return double(value);
  else if constexpr (std::is_signed_v<Stored>)
    return int64_t(value);
  else
    return uint64_t(value);
}

template <class Stored, class Kept>
GgufValue read_array_of(ByteReader& reader, uint64_t count) {
  std::vector<Kept> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = Kept(reader.read<Stored>({"array"}));
  return values;
}

GgufValue read_array(ByteReader& reader) {
  const uint32_t type = reader.read<uint32_t>({"element type"});
  const uint64_t count = reader.read<uint64_t>({"array length"});
  switch (type) {
    case kU8: return read_array_of<uint8_t, uint64_t>(reader, count);
    case kI8: return read_array_of<int8_t, int64_t>(reader, count);
    case kU16: return read_array_of<uint16_t, uint64_t>(reader, count);
    case kI16: return read_array_of<int16_t, int64_t>(reader, count);
    case kU32: return read_array_of<uint32_t, uint64_t>(reader, count);
    case kI32: return read_array_of<int32_t, int64_t>(reader, count);
    case kF32Value: return read_array_of<float, double>(reader, count);
    case kBool: return read_array_of<uint8_t, bool>(reader, count);
    case kU64: return read_array_of<uint64_t, uint64_t>(reader, count);
    case kI64: return read_array_of<int64_t, int64_t>(reader, count);
    case kF64: return read_array_of<double, double>(reader, count);
    default: break;
  }
  std::vector<std::string_view> strings(count);
  for (std::string_view& string : strings) string = reader.read_string({"string"});
  return strings;
}

GgufValue read_value(ByteReader reader, uint32_t type) {
  switch (type) {
    case kU8: return read_scalar<uint8_t>(reader);
    case kI8: return read_scalar<int8_t>(reader);
    case kU16: return read_scalar<uint16_t>(reader);
    case kI16: return read_scalar<int16_t>(reader);
    case kU32: return read_scalar<uint32_t>(reader);
    case kI32: return read_scalar<int32_t>(reader);
    case kF32Value: return read_scalar<float>(reader);
    case kBool: return reader.read<uint8_t>({"value"}) != 0;
    case kU64: return read_scalar<uint64_t>(reader);
    case kI64: return read_scalar<int64_t>(reader);
    case kF64: return read_scalar<double>(reader);
    case kArray: return read_array(reader);
    default: return reader.read_string({"string"});
  }
}

}  // namespace

GgufFile GgufFile::parse(std::span<const std::byte> file, uint64_t file_size) {
  if (file.size() > file_size) file = file.first(size_t(file_size));
  GgufFile result;
  ByteReader reader(file);
  result.version_ = read_version(reader, file);
  const uint64_t n_tensors = read_count(reader, {"tensor count"}, kMinTensorBytes);
  const uint64_t n_kv = read_count(reader, {"metadata count"}, kMinKvBytes);

  const std::vector<RawEntry> entries = check_metadata(reader, n_kv, result.metadata_index_);
  std::vector<uint64_t> offset_fields;
  for (uint64_t i = 0; i < n_tensors; ++i) {
    const uint64_t start = reader.offset();
    GgufTensor tensor = check_tensor(reader, i);
    offset_fields.push_back(reader.offset() - sizeof(uint64_t));
    if (!result.tensor_index_.emplace(tensor.name, i).second)
      fail_at(start, {"tensor", i},
              "is a second '" + std::string(tensor.name) + "': tensor names must differ");
    result.tensors_.push_back(std::move(tensor));
  }
  const auto alignment = result.metadata_index_.find("general.alignment");
  place_tensors(
      result.tensors_, offset_fields, reader.offset(),
      read_alignment(file, alignment == result.metadata_index_.end() ? nullptr : &entries[alignment->second]),
      file_size);

  for (const RawEntry& entry : entries) {
    result.metadata_.emplace_back(entry.key, read_value(ByteReader(file, entry.offset), entry.type));
    result.value_offsets_.push_back(entry.offset);
    const uint64_t stored = entry.offset - sizeof(uint32_t);
    result.stored_values_.push_back(file.subspan(size_t(stored), size_t(entry.end - stored)));
  }
  if (const uint64_t parts = result.get_uint("split.count").value_or(1); parts > 1)
    throw Error(ErrorCode::kModelUnsupported,
                "this file is one of " + std::to_string(parts) + " parts of a split model (" +
                    result.describe("split.count") + "); merge the parts into one file first");
  return result;
}

}  // namespace maestrale
