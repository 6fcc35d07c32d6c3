// SPDX-License-Identifier: Apache-2.0
// Reader for the safetensors format (huggingface/safetensors, README "Format"):
//
//   | N: u64 little-endian | N bytes of JSON: name -> {dtype, shape, data_offsets} | data |
//
// As in the reference reader, the byte ranges of the tensors must tile the data without holes and
// overlaps and have the size that dtype and shape give; beyond it, names must not repeat.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace maestrale {

enum class SafetensorsDtype {
  kBool,
  kU8,
  kI8,
  kF8_E4M3,
  kF8_E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kF64,
  kI64,
  kU64,
};

std::string_view dtype_name(SafetensorsDtype dtype);  // as the format spells it, e.g. "BF16"
uint64_t dtype_bytes(SafetensorsDtype dtype);

struct SafetensorsTensor {
  std::string name;
  SafetensorsDtype dtype;
  std::vector<uint64_t> shape;  // row-major; empty for a scalar
  uint64_t offset = 0;          // absolute byte offset in the file, not necessarily aligned
  uint64_t bytes = 0;
};

class SafetensorsFile {
 public:
  // Parses `file`, the first bytes of a safetensors file of `file_size` bytes, at least its header. The
  // bytes are not needed afterwards. Throws Error{kModelFormat} naming the tensor or the byte,
  // Error{kModelUnsupported} for a dtype that is not in the table above.
  static SafetensorsFile parse(std::span<const std::byte> file, uint64_t file_size);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }  // by ascending offset
  const SafetensorsTensor* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace maestrale
