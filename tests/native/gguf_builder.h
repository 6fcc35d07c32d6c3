// SPDX-License-Identifier: Apache-2.0
// Builds GGUF files in memory, sound ones and hostile ones: every field can be set to anything.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "quant/types.h"

namespace maestrale::test {

// Little-endian fields, one after the other.
struct Bytes {
  std::vector<std::byte> data;

  template <class T>
  Bytes& put(T value) {
    const size_t at = data.size();
    data.resize(at + sizeof value);
    std::memcpy(data.data() + at, &value, sizeof value);
    return *this;
  }
  Bytes& raw(std::string_view text) {
    for (const char c : text) data.push_back(std::byte(c));
    return *this;
  }
  Bytes& append(const Bytes& other) {
    data.insert(data.end(), other.data.begin(), other.data.end());
    return *this;
  }
  Bytes& string(std::string_view text) { return put<uint64_t>(text.size()).raw(text); }
  Bytes& pad_to(uint64_t alignment) {
    while (data.size() % alignment != 0) data.push_back(std::byte{0});
    return *this;
  }
};

struct TensorSpec {
  std::string name;
  std::vector<uint64_t> shape;
  uint32_t type = 0;
  Bytes data;
  std::optional<uint64_t> offset = {};  // in the data section; by default after the tensor before
  std::optional<uint32_t> n_dims = {};
};

class GgufBuilder {
 public:
  // Header fields, when they shall not be the true ones.
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors, n_kv;
  uint64_t alignment = 32;  // of the layout; general.alignment is a key like any other
  std::vector<TensorSpec> tensors;

  // Sets a key, or replaces its value. `type` is GGUF's value type id, `value` the bytes after it.
  GgufBuilder& set(const std::string& key, uint32_t type, Bytes value) {
    erase(key);
    return add(key, type, std::move(value));
  }
  // As `set`, but a key may appear twice.
  GgufBuilder& add(const std::string& key, uint32_t type, Bytes value) {
    entries_.push_back({key, type, std::move(value)});
    return *this;
  }
  GgufBuilder& erase(const std::string& key) {
    std::erase_if(entries_, [&](const Entry& entry) { return entry.key == key; });
    return *this;
  }
  GgufBuilder& u32(const std::string& key, uint32_t v) { return set(key, 4, Bytes().put(v)); }
  GgufBuilder& i32(const std::string& key, int32_t v) { return set(key, 5, Bytes().put(v)); }
  GgufBuilder& f32(const std::string& key, float v) { return set(key, 6, Bytes().put(v)); }
  GgufBuilder& f64(const std::string& key, double v) { return set(key, 12, Bytes().put(v)); }
  GgufBuilder& u64(const std::string& key, uint64_t v) { return set(key, 10, Bytes().put(v)); }
  GgufBuilder& boolean(const std::string& key, uint8_t v) { return set(key, 7, Bytes().put(v)); }
  GgufBuilder& string(const std::string& key, std::string_view v) { return set(key, 8, Bytes().string(v)); }
  GgufBuilder& strings(const std::string& key, const std::vector<std::string>& values) {
    Bytes bytes;
    bytes.put<uint32_t>(8).put<uint64_t>(values.size());
    for (const std::string& value : values) bytes.string(value);
    return set(key, 9, std::move(bytes));
  }
  template <class T>
  GgufBuilder& array(const std::string& key, uint32_t element_type, const std::vector<T>& values) {
    Bytes bytes;
    bytes.put<uint32_t>(element_type).put<uint64_t>(values.size());
    for (const T value : values) bytes.put(value);
    return set(key, 9, std::move(bytes));
  }
  GgufBuilder& floats(const std::string& key, const std::vector<float>& v) { return array(key, 6, v); }
  GgufBuilder& ints(const std::string& key, const std::vector<int32_t>& v) { return array(key, 5, v); }

  // An F32 tensor with element i = first + i / 1024.
  GgufBuilder& tensor(const std::string& name, const std::vector<uint64_t>& shape, float first = 1.0f) {
    Bytes data;
    uint64_t items = 1;
    for (const uint64_t dim : shape) items *= dim;
    for (uint64_t i = 0; i < items; ++i) data.put(first + float(i) / 1024);
    tensors.push_back({name, shape, 0, std::move(data)});
    return *this;
  }
  TensorSpec& find(const std::string& name) {
    return *std::find_if(tensors.begin(), tensors.end(), [&](const TensorSpec& t) { return t.name == name; });
  }

  // Everything before the data section, padded to it.
  Bytes header() const {
    Bytes out;
    out.raw(magic).put(version);
    out.put<uint64_t>(n_tensors.value_or(tensors.size())).put<uint64_t>(n_kv.value_or(entries_.size()));
    for (const Entry& entry : entries_) out.string(entry.key).put(entry.type).append(entry.value);
    uint64_t next = 0;
    for (const TensorSpec& tensor : tensors) {
      out.string(tensor.name).put<uint32_t>(tensor.n_dims.value_or(uint32_t(tensor.shape.size())));
      for (const uint64_t dim : tensor.shape) out.put(dim);
      out.put(tensor.type).put<uint64_t>(tensor.offset.value_or(next));
      next += (tensor.data.data.size() + alignment - 1) / alignment * alignment;
    }
    return out.pad_to(alignment);
  }
  // The last tensor ends the file without padding, so that no prefix of the file is complete.
  std::vector<std::byte> build() const {
    Bytes out = header();
    for (const TensorSpec& tensor : tensors) out.pad_to(alignment).append(tensor.data);
    return out.data;
  }

 private:
  struct Entry {
    std::string key;
    uint32_t type;
    Bytes value;
  };
  std::vector<Entry> entries_;
};

// The smallest model that loads: 1 layer, dim 32, 2 heads of 16, 1 KV head, hidden 48, 5 tokens.
inline GgufBuilder tiny_llama() {
  GgufBuilder b;
  b.string("general.architecture", "llama").string("general.name", "tiny");
  b.u32("llama.context_length", 128).u32("llama.embedding_length", 32).u32("llama.block_count", 1);
  b.u32("llama.feed_forward_length", 48).u32("llama.rope.dimension_count", 16);
  b.u32("llama.attention.head_count", 2).u32("llama.attention.head_count_kv", 1);
  b.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).f32("llama.rope.freq_base", 10000.0f);
  b.strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", "b"});
  b.tensor("token_embd.weight", {32, 5}, 0.0f).tensor("blk.0.attn_q.weight", {32, 32}, 1.0f);
  b.tensor("blk.0.attn_k.weight", {32, 16}, 2.0f).tensor("blk.0.attn_v.weight", {32, 16}, 3.0f);
  b.tensor("blk.0.attn_output.weight", {32, 32}, 4.0f).tensor("blk.0.ffn_gate.weight", {32, 48}, 5.0f);
  b.tensor("blk.0.ffn_up.weight", {32, 48}, 6.0f).tensor("blk.0.ffn_down.weight", {48, 32}, 7.0f);
  b.tensor("blk.0.attn_norm.weight", {32}, 8.0f).tensor("blk.0.ffn_norm.weight", {32}, 9.0f);
  b.tensor("output_norm.weight", {32}, 10.0f).tensor("output.weight", {32, 5}, 11.0f);
  return b;
}

}  // namespace maestrale::test
