// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a safetensors file. Whatever is accepted must lie inside the file.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file =
        maestrale::SafetensorsFile::parse({reinterpret_cast<const std::byte*>(data), size}, size);
    uint64_t end = 0;
    for (const maestrale::SafetensorsTensor& tensor : file.tensors()) {
      if (tensor.offset < end || tensor.bytes > size - tensor.offset) std::abort();
      end = tensor.offset + tensor.bytes;
    }
  } catch (const maestrale::Error&) {
  }
  return 0;
}
