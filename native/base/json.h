// SPDX-License-Identifier: Apache-2.0
// A strict JSON reader (RFC 8259) for headers and configuration files that strangers wrote. Depth and
// number of values are capped, strings must be valid UTF-8, keys of an object must differ; every defect
// is an Error{kModelFormat} that names the byte offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace maestrale {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  // in the order of the text

  struct Limits {
    int depth = 64;             // nested arrays and objects
    size_t values = 4'000'000;  // in the whole text; bounds the memory of the tree to about 160 MB
  };

  // Parses one value with nothing but whitespace around it.
  static Json parse(std::string_view text, const Limits& limits);
  static Json parse(std::string_view text) { return parse(text, Limits{}); }

  // The value when it is of that kind, nothing (or nullptr) otherwise.
  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  std::optional<bool> boolean() const;
  std::optional<int64_t> integer() const;  // a number without fraction and exponent that fits
  std::optional<double> number() const;    // any number
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  // The member `key` of an object, by linear search; nullptr when it is absent or this is no object.
  const Json* find(std::string_view key) const;

 private:
  friend class JsonParser;
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, Object> value_;
};

}  // namespace maestrale
