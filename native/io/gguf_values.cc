// SPDX-License-Identifier: Apache-2.0
// Look-ups in a parsed GGUF header. Writers disagree about integer widths and signs, so those are
// interchangeable; any other difference of type is an error that names the key.
#include <iterator>
#include <limits>

#include "base/error.h"
#include "io/gguf.h"

namespace maestrale {
namespace {

std::string kind_of(const GgufValue& value) {
  static constexpr const char* kKinds[] = {"an unsigned integer",
                                           "a signed integer",
                                           "a floating-point number",
                                           "a bool",
                                           "a string",
                                           "an array of unsigned integers",
                                           "an array of signed integers",
                                           "an array of floating-point numbers",
                                           "an array of bools",
                                           "an array of strings"};
  static_assert(std::size(kKinds) == std::variant_size_v<GgufValue>);
  return kKinds[value.index()];
}

[[noreturn]] void fail_type(const GgufFile& file, std::string_view key, const GgufValue& value,
                            const char* wanted) {
  throw Error(ErrorCode::kModelFormat,
              file.describe(key) + " is " + kind_of(value) + ", but must be " + wanted);
}

// The value as a T, nothing when the key is absent.
template <class T>
const T* get(const GgufFile& file, std::string_view key, const char* wanted) {
  const GgufValue* value = file.find(key);
  if (value == nullptr) return nullptr;
  const T* typed = std::get_if<T>(value);
  if (typed == nullptr) fail_type(file, key, *value, wanted);
  return typed;
}

}  // namespace

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto at = tensor_index_.find(name);
  return at == tensor_index_.end() ? nullptr : &tensors_[at->second];
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto at = metadata_index_.find(key);
  return at == metadata_index_.end() ? nullptr : &metadata_[at->second].second;
}

std::string GgufFile::describe(std::string_view key) const {
  const std::string name = "'" + std::string(key) + "'";
  const auto at = metadata_index_.find(key);
  return at == metadata_index_.end() ? name
                                     : name + " (byte " + std::to_string(value_offsets_[at->second]) + ")";
}

std::optional<uint64_t> GgufFile::get_uint(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* number = std::get_if<uint64_t>(value)) return *number;
  const auto* number = std::get_if<int64_t>(value);
  if (number == nullptr) fail_type(*this, key, *value, "an integer");
  if (*number < 0)
    throw Error(ErrorCode::kModelFormat,
                describe(key) + " is " + std::to_string(*number) + ", but must not be negative");
  return uint64_t(*number);
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const auto* number = get<double>(*this, key, "a floating-point number");
  return number == nullptr ? std::nullopt : std::optional(*number);
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const auto* truth = get<bool>(*this, key, "a bool");
  return truth == nullptr ? std::nullopt : std::optional(*truth);
}

std::optional<std::string_view> GgufFile::get_string(std::string_view key) const {
  const auto* string = get<std::string_view>(*this, key, "a string");
  return string == nullptr ? std::nullopt : std::optional(*string);
}

const std::vector<std::string_view>* GgufFile::get_strings(std::string_view key) const {
  return get<std::vector<std::string_view>>(*this, key, "an array of strings");
}

std::optional<std::vector<double>> GgufFile::get_floats(std::string_view key) const {
  const auto* numbers = get<std::vector<double>>(*this, key, "an array of floating-point numbers");
  return numbers == nullptr ? std::nullopt : std::optional(*numbers);
}

std::optional<std::vector<int64_t>> GgufFile::get_ints(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(value)) return *numbers;
  const auto* numbers = std::get_if<std::vector<uint64_t>>(value);
  if (numbers == nullptr) fail_type(*this, key, *value, "an array of integers");
  for (const uint64_t number : *numbers)
    if (number > uint64_t(std::numeric_limits<int64_t>::max()))
      throw Error(ErrorCode::kModelFormat,
                  describe(key) + " holds " + std::to_string(number) + ", which is too large");
  return std::vector<int64_t>(numbers->begin(), numbers->end());
}

}  // namespace maestrale
