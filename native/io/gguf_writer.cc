// SPDX-License-Identifier: Apache-2.0
#include "io/gguf_writer.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/integer.h"

namespace maestrale {
namespace {

constexpr uint64_t kAlignment = 32;  // what a file without general.alignment has
constexpr uint32_t kVersion = 3;

enum ValueType : uint32_t { kU32 = 4, kI32 = 5, kF32Value = 6, kBool = 7, kString = 8, kArray = 9 };

uint64_t aligned(uint64_t bytes) { return round_up(bytes, kAlignment); }

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.resize(out.size() + bytes.size());
  std::copy(bytes.begin(), bytes.end(), out.end() - ptrdiff_t(bytes.size()));
}

template <class T>
void put(std::vector<std::byte>& out, const T& value) {
  append(out, std::as_bytes(std::span(&value, 1)));
}

void put_string(std::vector<std::byte>& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  append(out, std::as_bytes(std::span(text)));
}

void put_array_header(std::vector<std::byte>& out, ValueType type, uint64_t count) {
  put<uint32_t>(out, kArray);
  put<uint32_t>(out, type);
  put<uint64_t>(out, count);
}

template <class T>
void put_array(std::vector<std::byte>& out, ValueType type, std::span<const T> values) {
  put_array_header(out, type, values.size());
  append(out, std::as_bytes(values));
}

uint64_t tensor_bytes(const GgufTensorPlan& tensor) {
  uint64_t rows = 1;
  for (size_t i = 1; i < tensor.shape.size(); ++i) rows *= tensor.shape[i];
  return rows * row_bytes(tensor.type, tensor.shape.at(0));
}

std::vector<std::byte> encode_header(const GgufMetadata& metadata,
                                     const std::vector<GgufTensorPlan>& tensors) {
  std::vector<std::byte> out;
  for (const char c : {'G', 'G', 'U', 'F'}) out.push_back(std::byte(c));
  put<uint32_t>(out, kVersion);
  put<uint64_t>(out, tensors.size());
  put<uint64_t>(out, metadata.entries().size());
  for (const GgufMetadata::Entry& entry : metadata.entries()) {
    put_string(out, entry.key);
    append(out, entry.value);
  }
  uint64_t offset = 0;
  for (const GgufTensorPlan& tensor : tensors) {
    put_string(out, tensor.name);
    put<uint32_t>(out, uint32_t(tensor.shape.size()));
    for (const uint64_t dim : tensor.shape) put<uint64_t>(out, dim);
    put<uint32_t>(out, uint32_t(tensor.type));
    put<uint64_t>(out, offset);
    offset += aligned(tensor_bytes(tensor));
  }
  out.resize(aligned(out.size()));
  return out;
}

}  // namespace

GgufMetadata::GgufMetadata(const GgufFile& file) {
  for (size_t i = 0; i < file.metadata().size(); ++i) {
    const auto stored = file.stored_value(i);
    entries_.push_back({std::string(file.metadata()[i].first), {stored.begin(), stored.end()}});
  }
  erase("general.alignment");  // the writer has its own
}

std::vector<std::byte>& GgufMetadata::slot(std::string_view key) {
  for (Entry& entry : entries_)
    if (entry.key == key) {
      entry.value.clear();
      return entry.value;
    }
  return entries_.emplace_back(Entry{std::string(key), {}}).value;
}

void GgufMetadata::set_u32(std::string_view key, uint32_t value) {
  std::vector<std::byte>& out = slot(key);
  put<uint32_t>(out, kU32);
  put(out, value);
}

void GgufMetadata::set_f32(std::string_view key, float value) {
  std::vector<std::byte>& out = slot(key);
  put<uint32_t>(out, kF32Value);
  put(out, value);
}

void GgufMetadata::set_bool(std::string_view key, bool value) {
  std::vector<std::byte>& out = slot(key);
  put<uint32_t>(out, kBool);
  put<uint8_t>(out, value ? 1 : 0);
}

void GgufMetadata::set_string(std::string_view key, std::string_view value) {
  std::vector<std::byte>& out = slot(key);
  put<uint32_t>(out, kString);
  put_string(out, value);
}

void GgufMetadata::set_strings(std::string_view key, std::span<const std::string> values) {
  std::vector<std::byte>& out = slot(key);
  put_array_header(out, kString, values.size());
  for (const std::string& value : values) put_string(out, value);
}

void GgufMetadata::set_f32s(std::string_view key, std::span<const float> values) {
  put_array(slot(key), kF32Value, values);
}

void GgufMetadata::set_i32s(std::string_view key, std::span<const int32_t> values) {
  put_array(slot(key), kI32, values);
}

void GgufMetadata::erase(std::string_view key) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key == key; });
}

void GgufMetadata::erase_prefix(std::string_view prefix) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key.starts_with(prefix); });
}

GgufWriter::GgufWriter(const std::string& path, const GgufMetadata& metadata,
                       std::vector<GgufTensorPlan> tensors, std::function<void()> before_write)
    : file_(path, std::move(before_write)), tensors_(std::move(tensors)) {
  file_.write(encode_header(metadata, tensors_));
  if (!tensors_.empty()) missing_ = tensor_bytes(tensors_[0]);
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  if (current_ == tensors_.size() || bytes.size() > missing_)
    throw Error(ErrorCode::kInternal,
                "more data than the " + std::to_string(tensors_.size()) + " tensors of a GGUF file have");
  file_.write(bytes);
  missing_ -= bytes.size();
  if (missing_ > 0) return;
  file_.pad_to(aligned(file_.size()));
  if (++current_ < tensors_.size()) missing_ = tensor_bytes(tensors_[current_]);
}

uint64_t GgufWriter::commit() {
  if (current_ < tensors_.size())
    throw Error(ErrorCode::kInternal,
                "tensor '" + tensors_[current_].name + "' lacks " + std::to_string(missing_) + " bytes");
  file_.commit();
  return file_.size();
}

}  // namespace maestrale
