// SPDX-License-Identifier: Apache-2.0
// Reads the safetensors files under tests/vectors into memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "io/safetensors.h"

namespace maestrale::test {

struct VectorTensor {
  std::string dtype;  // "F32", "I32", "U8", "BF16", ...
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;

  template <class T>
  std::vector<T> as() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }
};

inline std::vector<std::byte> read_vector_file(const std::string& name) {
  std::ifstream in(std::string(test::kVectors) + "/" + name, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open tests/vectors/" + name);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// All tensors of one file, by name.
inline std::map<std::string, VectorTensor> read_vectors(const std::string& name) {
  const std::vector<std::byte> file = read_vector_file(name);
  const SafetensorsFile header = SafetensorsFile::parse(file, file.size());
  std::map<std::string, VectorTensor> tensors;
  for (const SafetensorsTensor& tensor : header.tensors()) {
    const auto begin = file.begin() + long(tensor.offset);
    tensors.emplace(tensor.name, VectorTensor{std::string(dtype_name(tensor.dtype)),
                                              tensor.shape,
                                              {begin, begin + long(tensor.bytes)}});
  }
  return tensors;
}

}  // namespace maestrale::test
