// SPDX-License-Identifier: Apache-2.0
// The PTX lexer. Comments vanish here; lines are counted for error messages.
#include "ptx/lexer.h"

#include <cctype>

#include "ptx/ir.h"

namespace maestrale::ptxsim {
namespace {

bool in_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  int line = 1;
  size_t i = 0;
  const auto starts = [&](std::string_view mark) { return text.substr(i, mark.size()) == mark; };
  while (i < text.size()) {
    const char c = text[i];
    if (c == '\0') break;  // a C string's terminator ends the module
    if (c == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(c))) {
      ++i;
    } else if (starts("//")) {
      while (i < text.size() && text[i] != '\n') ++i;
    } else if (starts("/*")) {
      const size_t end = text.find("*/", i + 2);
      if (end == text.npos) throw PtxError(line, "a comment is not closed");
      for (; i < end + 2; ++i) line += text[i] == '\n';
    } else if (c == '"') {
      const size_t end = text.find('"', i + 1);
      if (end == text.npos) throw PtxError(line, "a string is not closed");
      tokens.push_back({Token::kString, text.substr(i + 1, end - i - 1), line});
      i = end + 1;
    } else if (in_word(c)) {
      const size_t begin = i;
      while (i < text.size() && (in_word(text[i]) || starts("::"))) i += starts("::") ? 2 : 1;
      tokens.push_back({Token::kWord, text.substr(begin, i - begin), line});
    } else if (std::string_view("{}()[]<>,;:=+-*|!@").find(c) != std::string_view::npos) {
      tokens.push_back({Token::kMark, text.substr(i, 1), line});
      ++i;
    } else {
      throw PtxError(line, std::string("unexpected character '") + c + "'");
    }
  }
  tokens.push_back({Token::kEnd, "", line});
  return tokens;
}

}  // namespace maestrale::ptxsim
