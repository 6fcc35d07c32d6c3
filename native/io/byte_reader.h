// SPDX-License-Identifier: Apache-2.0
// A bounds-checked cursor over the little-endian bytes of an untrusted file. It reads nothing past
// the end, allocates nothing, and every failure is an Error{kModelFormat} that names the field and
// the byte offset at which the field begins.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace maestrale {

static_assert(std::endian::native == std::endian::little, "GGUF fields are copied as they lie in the file");

// What is being read, for the message of a failure; put into words only then.
//   {"tensor count"}, {"length of key", 5}, {"length of element", 17, "tokenizer.ggml.tokens"}
struct Field {
  static constexpr uint64_t kNoIndex = UINT64_MAX;
  const char* name;
  uint64_t index = kNoIndex;
  std::string_view owner = {};

  std::string describe() const {
    std::string text = name;
    if (index != kNoIndex) text += " " + std::to_string(index);
    if (!owner.empty()) text += " of '" + std::string(owner.substr(0, 96)) + "'";
    return text;
  }
};

// `problem` continues the sentence: "<field> (byte 24) <problem>".
[[noreturn]] inline void fail_at(uint64_t offset, const Field& field, const std::string& problem) {
  throw Error(ErrorCode::kModelFormat,
              field.describe() + " (byte " + std::to_string(offset) + ") " + problem);
}

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes, uint64_t offset = 0)
      : bytes_(bytes), offset_(offset) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  template <class T>
  T read(const Field& field) {
    T value;
    std::memcpy(&value, take(sizeof(T), field), sizeof(T));
    return value;
  }

  // A length of 8 bytes, then as many bytes. The view points into the file.
  std::string_view read_string(const Field& field) {
    const uint64_t start = offset_;
    const uint64_t length = read<uint64_t>(field);
    if (length > remaining())
      fail_at(start, field,
              "is " + std::to_string(length) + ", but only " + std::to_string(remaining()) +
                  " bytes of the file remain");
    return {reinterpret_cast<const char*>(take(length, field)), size_t(length)};
  }

  const std::byte* take(uint64_t n, const Field& field) {
    if (n > remaining())
      fail_at(offset_, field,
              "is cut off: it needs " + std::to_string(n) + " bytes, but only " +
                  std::to_string(remaining()) + " remain in the file");
    const std::byte* at = bytes_.data() + offset_;
    offset_ += n;
    return at;
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t offset_;  // <= bytes_.size()
};

}  // namespace maestrale
