// SPDX-License-Identifier: Apache-2.0
// Reads the safetensors files under tests/vectors into memory. Only for files this repository holds:
// it trusts their headers as far as their writer sorted the fields dtype, shape, data_offsets.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace maestrale::test {

struct VectorTensor {
  std::string dtype;  // "F32", "I32", "U8", "BF16", ...
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;

  template <class T>
  std::vector<T> as() const {
    std::vector<T> out(bytes.size() / sizeof(T));
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    return out;
  }
};

inline std::vector<std::byte> read_vector_file(const std::string& name) {
  std::ifstream in(std::string(MAESTRALE_VECTORS) + "/" + name, std::ios::binary);
  if (!in) throw std::runtime_error("cannot open tests/vectors/" + name);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

// All tensors of one file, by name.
inline std::map<std::string, VectorTensor> read_vectors(const std::string& name) {
  const std::vector<std::byte> file = read_vector_file(name);
  uint64_t header_size = 0;
  std::memcpy(&header_size, file.data(), 8);
  const std::string header(reinterpret_cast<const char*>(file.data()) + 8, header_size);
  std::map<std::string, VectorTensor> tensors;
  for (size_t at = header.find("{\"dtype\":"); at != std::string::npos;
       at = header.find("{\"dtype\":", at + 1)) {
    const size_t name_end = at - 2, name_begin = header.rfind('"', name_end - 1) + 1;
    VectorTensor tensor;
    const size_t dtype = at + 10;
    tensor.dtype = header.substr(dtype, header.find('"', dtype) - dtype);
    const char* cursor = header.c_str() + header.find("\"shape\":[", at) + 9;
    while (*cursor != ']') {
      char* end;
      tensor.shape.push_back(std::strtoll(cursor, &end, 10));
      cursor = *end == ',' ? end + 1 : end;
    }
    char* end;
    const uint64_t from =
        std::strtoull(header.c_str() + header.find("\"data_offsets\":[", at) + 16, &end, 10);
    const uint64_t to = std::strtoull(end + 1, nullptr, 10);
    tensor.bytes.assign(file.begin() + long(8 + header_size + from),
                        file.begin() + long(8 + header_size + to));
    tensors.emplace(header.substr(name_begin, name_end - name_begin), std::move(tensor));
  }
  return tensors;
}

}  // namespace maestrale::test
