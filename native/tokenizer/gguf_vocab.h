// SPDX-License-Identifier: Apache-2.0
// A vocabulary as the tokenizer.ggml.* metadata of a GGUF file (specification: ggml/docs/gguf.md, section
// "Tokenizer").
#pragma once

#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "tokenizer/vocab.h"

namespace maestrale {

// Copies everything: the result does not depend on the file's lifetime. Throws Error{kModelFormat}
// for a missing or damaged vocabulary and Error{kModelUnsupported} for one that is not SentencePiece.
Vocab vocab_from_gguf(const GgufFile& file);

// Sets all that vocab_from_gguf() reads. Rows of the embedding beyond the vocabulary get names, since other
// readers count them by those.
void write_vocab(const Vocab& vocab, int32_t embedding_rows, GgufMetadata& metadata);

}  // namespace maestrale
