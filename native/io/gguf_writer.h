// SPDX-License-Identifier: Apache-2.0
// Writes GGUF version 3 (specification: ggml/docs/gguf.md): metadata, then tensors one after the other,
// streamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/atomic_file.h"
#include "io/gguf.h"

namespace maestrale {

// Keys and values as they will lie in the file, in the order in which the keys came first. Setting a key
// again replaces its value.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  // All of `file`'s, byte for byte: every value keeps its width.
  explicit GgufMetadata(const GgufFile& file);

  void set_u32(std::string_view key, uint32_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_f32s(std::string_view key, std::span<const float> values);
  void set_i32s(std::string_view key, std::span<const int32_t> values);
  void erase(std::string_view key);
  void erase_prefix(std::string_view prefix);  // all keys that begin so

  struct Entry {
    std::string key;
    std::vector<std::byte> value;  // value type (u32) and value
  };
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<std::byte>& slot(std::string_view key);  // emptied

  std::vector<Entry> entries_;
};

struct GgufTensorPlan {
  std::string name;
  QuantType type = QuantType::kF32;
  std::vector<uint64_t> shape;  // ne[0] (contiguous), ne[1], ...; whole blocks of the type
};

class GgufWriter {
 public:
  // The file appears at `path` on commit(). `before_write` as for AtomicFile. Throws Error{kInvalidArg} when
  // it cannot be written.
  GgufWriter(const std::string& path, const GgufMetadata& metadata, std::vector<GgufTensorPlan> tensors,
             std::function<void()> before_write = {});

  // The data of the tensors in order, in pieces of any size that end where a tensor ends.
  void write(std::span<const std::byte> bytes);
  // Returns the size of the file. Throws Error{kInternal} when data are missing.
  uint64_t commit();

 private:
  AtomicFile file_;
  std::vector<GgufTensorPlan> tensors_;
  size_t current_ = 0;    // the tensor that is being written
  uint64_t missing_ = 0;  // bytes of it that are to come
};

}  // namespace maestrale
