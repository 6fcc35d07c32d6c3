// SPDX-License-Identifier: Apache-2.0
// Tokens to text, one token at a time. Text comes out as soon as it is certain: at most 3 bytes (an
// unfinished UTF-8 character) are ever held back, and every piece of output is valid UTF-8.
// Whole-text decoding is the same code with a flush at the end, so a stream and decode() never differ.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tokenizer/vocab.h"

namespace maestrale {

// Joins bytes that arrive in any cuts to valid UTF-8; a byte of a broken sequence becomes U+FFFD.
class Utf8Assembler {
 public:
  void push(std::string_view bytes, std::string& out);
  void flush(std::string& out);  // what is still pending can no longer become valid
  size_t pending() const { return pending_.size(); }

 private:
  std::string pending_;  // a proper prefix of one character, at most 3 bytes
};

struct DecodeOptions {
  bool strip_leading_space = true;  // false when the text continues an earlier one
  bool special_as_text = false;     // true spells control tokens out, e.g. "[INST]"
};

class StreamDecoder {
 public:
  // `vocab` must outlive the decoder.
  explicit StreamDecoder(const Vocab& vocab, DecodeOptions options = {});

  // Appends the text that this token makes certain to `out`. Throws Error{kInvalidArg} for an id
  // outside the vocabulary.
  void push(int32_t token, std::string& out);
  // Ends the text.
  void flush(std::string& out);

 private:
  const Vocab* vocab_;
  DecodeOptions options_;
  Utf8Assembler bytes_;
  bool at_start_;  // the next text piece loses one leading space
};

}  // namespace maestrale
