// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a tokenizer.json. Whatever is accepted has a score and a type for every
// piece.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "tokenizer/tokenizer_json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace maestrale;
  try {
    const Json json = Json::parse({reinterpret_cast<const char*>(data), size});
    Vocab vocab = vocab_from_tokenizer_json(json);
    const size_t n = vocab.pieces.size();
    if (vocab.scores.size() != n || vocab.types.size() != n) std::abort();
    for (const float score : vocab.scores)
      if (!std::isfinite(score)) std::abort();
    finish_vocab(vocab);
  } catch (const Error&) {
  }
  return 0;
}
