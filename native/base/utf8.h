// SPDX-License-Identifier: Apache-2.0
// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
// One rule for broken input everywhere: each byte that is not part of a valid sequence counts as one
// character of its own and reads as U+FFFD, as SentencePiece does it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace maestrale {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";    // U+2581, a space inside a piece

// Bytes of the sequence that starts with this byte, 0 when no sequence starts with it.
inline size_t utf8_expected_length(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// True when `second` may follow `lead`: this is where overlong forms, surrogates and code points
// above U+10FFFF show (RFC 3629, section 4).
inline bool utf8_second_byte_fits(uint8_t lead, uint8_t second) {
  switch (lead) {
    case 0xE0: return second >= 0xA0 && second <= 0xBF;
    case 0xED: return second >= 0x80 && second <= 0x9F;
    case 0xF0: return second >= 0x90 && second <= 0xBF;
    case 0xF4: return second >= 0x80 && second <= 0x8F;
    default: return (second & 0xC0) == 0x80;
  }
}

// Bytes at the start of `text` (not empty) that agree with its lead byte, at least 1. Equal to
// utf8_expected_length() for a whole character; smaller for a broken or cut one.
inline size_t utf8_agreeing_bytes(std::string_view text) {
  const uint8_t lead = uint8_t(text[0]);
  const size_t expected = utf8_expected_length(lead);
  size_t n = 1;
  while (n < expected && n < text.size()) {
    const uint8_t byte = uint8_t(text[n]);
    if (n == 1 ? !utf8_second_byte_fits(lead, byte) : (byte & 0xC0) != 0x80) break;
    ++n;
  }
  return n;
}

// Length of the valid character at the start of `text` (not empty), 0 when there is none.
inline size_t utf8_character(std::string_view text) {
  const size_t expected = utf8_expected_length(uint8_t(text[0]));
  return expected != 0 && utf8_agreeing_bytes(text) == expected ? expected : 0;
}

inline bool utf8_valid(std::string_view text) {
  while (!text.empty()) {
    const size_t n = utf8_character(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

}  // namespace maestrale
