// SPDX-License-Identifier: Apache-2.0
#include "base/json_text.h"

#include <charconv>

namespace maestrale {
namespace {

template <class T>
std::string shortest(T value) {
  char digits[32];
  return std::string(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

}  // namespace

std::string json_string(std::string_view utf8) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : utf8) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out += {kHex[c >> 4], kHex[c & 15]};
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string json_number(float value) { return shortest(value); }
std::string json_number(double value) { return shortest(value); }

void JsonObjectText::add(std::string_view key, std::string_view json) {
  if (!members_.empty()) members_ += ",\n";
  members_ += "  " + json_string(key) + ": ";
  members_ += json;
}

}  // namespace maestrale
