// SPDX-License-Identifier: Apache-2.0
// Reads a vocabulary from a tokenizer.json, as the `tokenizers` library writes it.
#pragma once

#include "base/json.h"
#include "tokenizer/vocab.h"

namespace maestrale {

constexpr int64_t kMaxTokenId = (1 << 20) - 1;

// A file that transformers made of a SentencePiece model gives that model's tokens again. Copies everything.
// The result has not been through finish_vocab() yet; bos, eos and unk are -1 where the file does not tell.
// Throws Error{kModelUnsupported} naming the step for files that tokenise in another way (byte-level BPE as
// of GPT-2 and tekken, Unigram, merges in another order), Error{kModelFormat} for damaged ones.
Vocab vocab_from_tokenizer_json(const Json& json);

}  // namespace maestrale
