// SPDX-License-Identifier: Apache-2.0
// Writes a vocabulary as a SentencePiece model file, tokenizer.model: what vocab_from_spm() reads.
#pragma once

#include <string>

#include "tokenizer/vocab.h"

namespace maestrale {

std::string spm_model(const Vocab& vocab);

}  // namespace maestrale
