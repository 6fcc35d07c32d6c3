// SPDX-License-Identifier: Apache-2.0
// Reads a vocabulary from the tokenizer.ggml.* metadata of a GGUF file (specification:
// ggml/docs/gguf.md, section "Tokenizer").
#pragma once

#include "io/gguf.h"
#include "tokenizer/vocab.h"

namespace maestrale {

// Copies everything: the result does not depend on the file's lifetime. Throws Error{kModelFormat}
// for a missing or damaged vocabulary and Error{kModelUnsupported} for one that is not SentencePiece.
Vocab vocab_from_gguf(const GgufFile& file);

}  // namespace maestrale
