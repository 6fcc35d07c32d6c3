// SPDX-License-Identifier: Apache-2.0
// Reader for GGUF versions 2 and 3 (specification: ggml/docs/gguf.md). The whole header is checked
// against the real file size, in overflow-checked 64-bit arithmetic, before anything is allocated
// for it; every defect is an Error{kModelFormat} that names the byte offset and the field.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "quant/types.h"

namespace maestrale {

// A metadata value. Integers of every width arrive as int64/uint64, floats as double. Arrays keep
// their element kind; views of strings point into the mapped header and live as long as it does.
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string_view, std::vector<uint64_t>,
                 std::vector<int64_t>, std::vector<double>, std::vector<bool>, std::vector<std::string_view>>;

struct GgufTensor {
  std::string_view name;
  QuantType type;
  int64_t cols = 0;             // ne[0], contiguous
  int64_t rows = 0;             // ne[1] * ne[2] * ne[3]
  std::vector<uint64_t> shape;  // as stored: ne[0], ne[1], ...
  uint64_t offset = 0;          // absolute byte offset in the file
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  // Parses `file`, the first bytes of a GGUF file of `file_size` bytes (usually the whole mapping).
  // The bytes must outlive this object. Throws Error{kModelFormat, kModelUnsupported}.
  static GgufFile parse(std::span<const std::byte> file, uint64_t file_size);

  uint32_t version() const { return version_; }
  const std::vector<std::pair<std::string_view, GgufValue>>& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const;
  const GgufValue* find(std::string_view key) const;
  // The bytes of metadata()[i] after its key, as stored: value type (u32) and value. Like views of strings
  // they point into the header.
  std::span<const std::byte> stored_value(size_t i) const { return stored_values_[i]; }
  // "'llama.block_count' (byte 217)", for messages about a value; the key alone when it is absent.
  std::string describe(std::string_view key) const;

  // Typed look-ups: nothing when the key is absent, Error{kModelFormat} naming the key when it has
  // another type. Integers of any width and sign are interchangeable when the value fits.
  std::optional<uint64_t> get_uint(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string_view> get_string(std::string_view key) const;
  const std::vector<std::string_view>* get_strings(std::string_view key) const;
  std::optional<std::vector<double>> get_floats(std::string_view key) const;
  std::optional<std::vector<int64_t>> get_ints(std::string_view key) const;

 private:
  uint32_t version_ = 0;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;  // in file order
  std::vector<uint64_t> value_offsets_;                           // byte offset of each value
  std::vector<std::span<const std::byte>> stored_values_;         // (metadata)
  std::vector<GgufTensor> tensors_;                               // in file order
  std::map<std::string_view, size_t> metadata_index_;
  std::map<std::string_view, size_t> tensor_index_;
};

}  // namespace maestrale
