// SPDX-License-Identifier: Apache-2.0
// What tokenizer_config.json says beside a tokenizer.model: what vocab_from_hf() reads.
#pragma once

#include <string>

#include "tokenizer/vocab.h"

namespace maestrale {

std::string tokenizer_config(const Vocab& vocab);

}  // namespace maestrale
