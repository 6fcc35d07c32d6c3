// SPDX-License-Identifier: Apache-2.0
// JSON text (RFC 8259) for the small files that are written: objects, member by member.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace maestrale {

// A text in quotes; `utf8` must be valid.
std::string json_string(std::string_view utf8);

// The shortest digits that read back as this finite value, of float or of double.
std::string json_number(float value);
std::string json_number(double value);

// { "key": value, ... } with a line for each member, in the order of the calls.
class JsonObjectText {
 public:
  // `json` is the text of any value.
  void add(std::string_view key, std::string_view json);
  void add_string(std::string_view key, std::string_view utf8) { add(key, json_string(utf8)); }
  void add_integer(std::string_view key, std::integral auto value) { add(key, std::to_string(value)); }
  void add_flag(std::string_view key, bool value) { add(key, value ? "true" : "false"); }

  std::string text() const { return "{\n" + members_ + "\n}\n"; }

 private:
  std::string members_;
};

}  // namespace maestrale
