// SPDX-License-Identifier: Apache-2.0
// For tests of what an error says: its code, and words that its message must contain.
#pragma once

#include <string>

#include "base/error.h"
#include "check.h"

namespace maestrale::test {

// Runs `body`, which must throw an Error with this code whose message contains `words`; `what` names
// the case when it does not. Returns the message.
template <class Body>
std::string expect_error(const std::string& what, ErrorCode code, const std::string& words,
                         const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string got = std::string(error_code_name(error.code())) + ": " + error.message();
    if (error.code() != code)
      throw std::runtime_error(what + ": expected " + error_code_name(code) + ", got " + got);
    if (error.message().find(words) == std::string::npos)
      throw std::runtime_error(what + ": expected the words '" + words + "', got " + got);
    return error.message();
  }
  throw std::runtime_error(what + ": did not throw");
}

}  // namespace maestrale::test
