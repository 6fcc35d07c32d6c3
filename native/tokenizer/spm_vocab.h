// SPDX-License-Identifier: Apache-2.0
// Reads a vocabulary from a SentencePiece model file, tokenizer.model (sentencepiece_model.proto of
// google/sentencepiece).
#pragma once

#include <cstddef>
#include <span>

#include "tokenizer/vocab.h"

namespace maestrale {

// Copies everything. The result has not been through finish_vocab() yet: the caller may still add tokens.
// Throws Error{kModelFormat} naming the byte for damaged files, Error{kModelUnsupported} for models that are
// no BPE or normalise text in ways that Mistral's do not.
Vocab vocab_from_spm(std::span<const std::byte> file);

}  // namespace maestrale
