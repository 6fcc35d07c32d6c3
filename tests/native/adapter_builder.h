// SPDX-License-Identifier: Apache-2.0
// PEFT adapters that a test may change: those of tests/vectors, and new ones.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "checkpoint_fixture.h"
#include "temp_dir.h"
#include "vectors.h"

namespace maestrale::test {

inline std::vector<TensorCopy> tensors_in(const std::string& file) {
  std::vector<TensorCopy> tensors;
  for (const auto& [name, tensor] : read_vectors(file))
    tensors.push_back({name, tensor.shape, tensor.bytes, tensor.dtype});
  return tensors;
}

// Values that look random, of the size that weights have.
inline TensorCopy float_tensor(const std::string& name, const std::vector<uint64_t>& shape,
                               float size = 0.05f) {
  uint64_t count = 1;
  for (const uint64_t side : shape) count *= side;
  TensorCopy tensor{name, shape, std::vector<std::byte>(count * sizeof(float)), "F32"};
  uint32_t state = uint32_t(count) + uint32_t(name.size());
  for (uint64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    tensor.floats()[i] = size * (float(state >> 8) / 8388608.0f - 1.0f);
  }
  return tensor;
}

// A copy of tests/vectors/adapters/<name>, written where `path()` says by write().
struct PeftDirectory {
  TempDir dir;
  std::string config;
  std::vector<TensorCopy> tensors;

  explicit PeftDirectory(const std::string& name) {
    for (const std::byte b : read_vector_file("adapters/" + name + "/adapter_config.json")) config += char(b);
    tensors = tensors_in("adapters/" + name + "/adapter_model.safetensors");
  }
  std::string path() const { return dir.path(""); }
  void write() const {
    dir.write("adapter_config.json", to_bytes(config));
    dir.write("adapter_model.safetensors", safetensors(tensors));
  }
  // Replaces the value of a field of the configuration.
  void set(const std::string& field, const std::string& value) {
    const size_t at = config.find("\"" + field + "\":");
    if (at == std::string::npos) throw std::runtime_error("no field " + field);
    const size_t begin = at + field.size() + 3;
    size_t end = begin;  // of the value: the comma or brace outside of brackets
    for (int depth = 0; depth > 0 || (config[end] != ',' && config[end] != '}'); ++end) {
      if (config[end] == '[' || config[end] == '{') ++depth;
      if (config[end] == ']' || config[end] == '}') --depth;
    }
    config.replace(begin, end - begin, " " + value);
  }
  // The first tensor whose name contains `part`.
  TensorCopy& find(const std::string& part) {
    return *std::find_if(tensors.begin(), tensors.end(),
                         [&](const TensorCopy& t) { return t.name.find(part) != std::string::npos; });
  }
};

}  // namespace maestrale::test
