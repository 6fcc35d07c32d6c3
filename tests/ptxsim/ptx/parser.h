// SPDX-License-Identifier: Apache-2.0
// What the module level and the function-body level of the parser share: the token cursor and the
// declaration of variables.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ptx/ir.h"
#include "ptx/lexer.h"

namespace maestrale::ptxsim {

class Cursor {
 public:
  explicit Cursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  bool at(std::string_view text) const { return peek().kind != Token::kString && peek().text == text; }
  bool at_end() const { return peek().kind == Token::kEnd; }
  int line() const { return peek().line; }
  Token next() {
    const Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool accept(std::string_view text) {
    if (!at(text)) return false;
    next();
    return true;
  }
  void expect(std::string_view text) {
    if (!accept(text)) fail("expected '" + std::string(text) + "', found '" + std::string(peek().text) + "'");
  }
  std::string word() {
    if (peek().kind != Token::kWord) fail("expected a name, found '" + std::string(peek().text) + "'");
    return std::string(next().text);
  }
  // A decimal, hexadecimal (0x), octal (0) or binary (0b) integer with optional sign and U suffix.
  int64_t integer();
  [[noreturn]] void fail(const std::string& message) const { throw PtxError(line(), message); }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

// Value of an integer word; fails with `line` when it is none.
uint64_t parse_integer(std::string_view word, int line);
// After the space directive: [.align n] [.ptr ...] .type name [dims] [= initialiser]
Variable parse_variable(Cursor& in, Space space);
// From after '{' to the matching '}'.
void parse_body(Cursor& in, Function& function);

}  // namespace maestrale::ptxsim
