// SPDX-License-Identifier: Apache-2.0
// libFuzzer target over everything that reads a GGUF header: parser, hyperparameters, vocabulary. Any
// bytes must either be read or refused with an Error; any other exception, signal or sanitizer report
// is a defect.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "io/gguf.h"
#include "model/config.h"
#include "tokenizer/gguf_vocab.h"

namespace {

// Runs one reader; a refusal is as good as a result.
template <class Body>
void attempt(const Body& body) {
  try {
    body();
  } catch (const maestrale::Error&) {
  }
}

void check_promises(const maestrale::GgufFile& file, uint64_t file_size) {
  for (const maestrale::GgufTensor& tensor : file.tensors())
    if (tensor.offset > file_size || tensor.bytes > file_size - tensor.offset) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  attempt([&] {
    const maestrale::GgufFile file = maestrale::GgufFile::parse(bytes, size);
    check_promises(file, size);
    attempt([&] { maestrale::config_from_gguf(file); });
    attempt([&] { maestrale::vocab_from_gguf(file); });
  });
  // The same header in front of a large file, so that tensors have room to be placed.
  attempt([&] { check_promises(maestrale::GgufFile::parse(bytes, uint64_t{1} << 33), uint64_t{1} << 33); });
  return 0;
}
