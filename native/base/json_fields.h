// SPDX-License-Identifier: Apache-2.0
// The members of a JSON object that configures something. Every look-up that goes wrong is an Error that
// names the member and the file it is in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"

namespace maestrale {

class JsonFields {
 public:
  // `where` is what messages call the object, e.g. "config.json"; `json` must outlive the view. Throws
  // Error{kModelFormat} when it is no object.
  JsonFields(const Json& json, std::string where);

  const std::string& where() const { return where_; }
  const Json::Object& members() const { return *json_->object(); }

  // Absent, or null: the two mean the same in most files, not in all.
  bool is_absent(std::string_view field) const { return json_->find(field) == nullptr; }
  // The member, when it is there and not null.
  const Json* find(std::string_view field) const;

  // The member as a value of that kind; nothing when it is absent or null, Error{kModelFormat} when it is of
  // another kind or out of range.
  std::optional<int64_t> integer(std::string_view field, int64_t low, int64_t high) const;
  std::optional<double> real(std::string_view field) const;
  std::optional<bool> flag(std::string_view field) const;
  std::optional<std::string> text(std::string_view field) const;
  std::optional<JsonFields> object(std::string_view field) const;
  const Json::Array* array(std::string_view field) const;  // nullptr for nothing

  // A size that must be there.
  int32_t size(std::string_view field, uint64_t high) const;

  // 'FIELD' of WHERE PROBLEM
  [[noreturn]] void fail(std::string_view field, const std::string& problem,
                         ErrorCode code = ErrorCode::kModelFormat) const;
  [[noreturn]] void unsupported(std::string_view field, const std::string& problem) const {
    fail(field, problem, ErrorCode::kModelUnsupported);
  }

 private:
  const Json* json_;
  std::string where_;
};

// A number as messages show it.
std::string decimal(double value);

// At most 64 bytes of a text from a file, whole characters, as messages quote it.
std::string excerpt(std::string_view text);

}  // namespace maestrale
