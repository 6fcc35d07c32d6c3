// SPDX-License-Identifier: Apache-2.0
// Writes a safetensors file (format: safetensors.h): header, then tensors one after the other, streamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/atomic_file.h"
#include "io/safetensors.h"

namespace maestrale {

struct SafetensorsPlan {
  std::string name;
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::vector<uint64_t> shape;  // row-major

  uint64_t bytes() const;
};

class SafetensorsWriter {
 public:
  // The file appears at `path` on commit(). `before_write` as for AtomicFile. Throws Error{kInvalidArg} when
  // it cannot be written.
  SafetensorsWriter(const std::string& path, const std::vector<SafetensorsPlan>& tensors,
                    std::function<void()> before_write = {});

  // The data of the tensors in order, in pieces of any size.
  void write(std::span<const std::byte> bytes);
  // Bytes that are to come.
  uint64_t missing() const { return missing_; }
  // Returns the size of the file. Throws Error{kInternal} when data are missing.
  uint64_t commit();

 private:
  AtomicFile file_;
  uint64_t missing_ = 0;
};

}  // namespace maestrale
