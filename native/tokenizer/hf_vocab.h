// SPDX-License-Identifier: Apache-2.0
// The vocabulary of a checkpoint directory: tokenizer.model (also under Mistral's own names), else
// tokenizer.json, with what tokenizer_config.json, added_tokens.json, chat_template.jinja or .json,
// config.json and generation_config.json say beside it.
#pragma once

#include <string>

#include "tokenizer/vocab.h"

namespace maestrale {

// Throws Error{kModelUnsupported} when there is no tokenizer file or one of another kind, Error{kModelFormat}
// for damaged files.
Vocab vocab_from_hf(const std::string& directory);

// As above for a model of `vocab_size` tokens, which can be used with token ids when there is no
// tokenizer file: texts to encode are then refused with the reason, and decoding gives no text.
Vocab vocab_from_hf(const std::string& directory, int32_t vocab_size);

}  // namespace maestrale
