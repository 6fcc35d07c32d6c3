// SPDX-License-Identifier: Apache-2.0
#include "io/text_file.h"

#include <filesystem>
#include <span>

#include "base/error.h"
#include "io/mapped_file.h"

namespace maestrale {

// Ten times the largest tokenizer.json that is published.
constexpr uint64_t kMaxBytes = uint64_t{256} << 20;

std::optional<std::string> read_text(const std::string& directory, const std::string& name) {
  const std::filesystem::path path = std::filesystem::path(directory) / name;
  std::error_code ignored;  // what cannot be examined is not there
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  const MappedFile file(path.string());
  if (file.size() > kMaxBytes)
    throw Error(ErrorCode::kModelFormat, "'" + path.string() + "' has " + std::to_string(file.size()) +
                                             " bytes, more than the " + std::to_string(kMaxBytes) +
                                             " that are read");
  std::string text(size_t(file.size()), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::optional<Json> read_json(const std::string& directory, const std::string& name) {
  const std::optional<std::string> text = read_text(directory, name);
  if (!text) return std::nullopt;
  try {
    return Json::parse(*text);
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.message());
  }
}

}  // namespace maestrale
