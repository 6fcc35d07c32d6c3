// SPDX-License-Identifier: Apache-2.0
// From the merges of a tokenizer.json back to the scores of the SentencePiece model it was made of.
//
// SentencePiece joins the pair whose piece has the highest score; `tokenizers` joins the pair that comes
// first in a list. transformers lists every split of every piece into two pieces, ordered by the score of the
// piece. The piece whose splits come first therefore has the highest score. Splits of pieces with equal
// scores may come mixed, longest left half first; such pieces get one score, and the leftmost pair wins, as
// in SentencePiece.
#pragma once

#include "base/json.h"
#include "tokenizer/vocab.h"

namespace maestrale {

// Sets the scores. `merges` are texts "left right" or pairs ["left", "right"]; of pieces that are no text
// (control, byte) they are ignored. Throws Error{kModelFormat} for a merge that is none of tokens of `vocab`,
// Error{kModelUnsupported} for a list that is not what a SentencePiece model gives: a split is missing, or
// pieces are mixed otherwise.
void score_by_merges(const Json::Array& merges, Vocab& vocab);

}  // namespace maestrale
