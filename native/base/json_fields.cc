// SPDX-License-Identifier: Apache-2.0
#include "base/json_fields.h"

#include <cstdio>
#include <utility>

namespace maestrale {

JsonFields::JsonFields(const Json& json, std::string where) : json_(&json), where_(std::move(where)) {
  if (json.object() == nullptr) throw Error(ErrorCode::kModelFormat, where_ + " holds no JSON object");
}

void JsonFields::fail(std::string_view field, const std::string& problem, ErrorCode code) const {
  throw Error(code, "'" + std::string(field) + "' of " + where_ + " " + problem);
}

const Json* JsonFields::find(std::string_view field) const {
  const Json* value = json_->find(field);
  return value == nullptr || value->is_null() ? nullptr : value;
}

std::optional<int64_t> JsonFields::integer(std::string_view field, int64_t low, int64_t high) const {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  const std::optional<int64_t> number = value->integer();
  if (!number) fail(field, "is not an integer");
  if (*number < low || *number > high)
    fail(field, "is " + std::to_string(*number) + ", but must be " + std::to_string(low) + " to " +
                    std::to_string(high));
  return number;
}

int32_t JsonFields::size(std::string_view field, uint64_t high) const {
  const std::optional<int64_t> value = integer(field, 1, int64_t(high));
  if (!value) fail(field, "is missing");
  return int32_t(*value);
}

std::optional<double> JsonFields::real(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->number()) fail(field, "is not a number");
  return value->number();
}

std::optional<bool> JsonFields::flag(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (!value->boolean()) fail(field, "is neither true nor false");
  return value->boolean();
}

std::optional<std::string> JsonFields::text(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (value->string() == nullptr) fail(field, "is not a text");
  return *value->string();
}

std::optional<JsonFields> JsonFields::object(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr) return std::nullopt;
  if (value->object() == nullptr) fail(field, "is not an object");
  return JsonFields(*value, "'" + std::string(field) + "' of " + where_);
}

const Json::Array* JsonFields::array(std::string_view field) const {
  const Json* value = find(field);
  if (value == nullptr) return nullptr;
  if (value->array() == nullptr) fail(field, "is not a list");
  return value->array();
}

std::string decimal(double value) {
  char out[32];
  std::snprintf(out, sizeof out, "%.9g", value);
  return out;
}

std::string excerpt(std::string_view text) {
  constexpr size_t kMost = 64;
  if (text.size() <= kMost) return std::string(text);
  size_t end = kMost;
  while (end > 0 && (uint8_t(text[end]) & 0xc0) == 0x80) --end;  // not within a character
  return std::string(text.substr(0, end)) + "...";
}

}  // namespace maestrale
