// SPDX-License-Identifier: Apache-2.0
// Recursive-descent JSON parser. The recursion is as deep as the text nests, which Limits::depth caps.
#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"

namespace maestrale {

class JsonParser {
 public:
  JsonParser(std::string_view text, const Json::Limits& limits) : text_(text), limits_(limits) {}

  Json parse_document() {
    Json document = parse_value(0);
    skip_whitespace();
    if (at_ != text_.size()) fail("there is text after the end of the value");
    return document;
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorCode::kModelFormat, "invalid JSON at byte " + std::to_string(at_) + ": " + problem);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char expected) {
    if (peek() != expected || at_ == text_.size()) return false;
    ++at_;
    return true;
  }

  void skip_whitespace() {
    while (at_ < text_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) ++at_;
  }

  Json parse_value(int depth) {
    if (++values_ > limits_.values) fail("there are more than " + std::to_string(limits_.values) + " values");
    skip_whitespace();
    Json json;
    switch (peek()) {
      case '{': json.value_ = parse_object(depth + 1); break;
      case '[': json.value_ = parse_array(depth + 1); break;
      case '"': json.value_ = parse_string(); break;
      case 't': take_word("true"), json.value_ = true; break;
      case 'f': take_word("false"), json.value_ = false; break;
      case 'n': take_word("null"); break;
      default: parse_number(json);
    }
    return json;
  }

  void take_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) fail("a value was expected");
    at_ += word.size();
  }

  void enter(int depth) {
    if (depth > limits_.depth)
      fail("arrays and objects are nested more than " + std::to_string(limits_.depth) + " deep");
    ++at_;
    skip_whitespace();
  }

  // After an element: true when a comma announces another one, false after the closing bracket.
  bool more_follow(char close) {
    skip_whitespace();
    if (take(close)) return false;
    if (!take(',')) fail(std::string("',' or '") + close + "' was expected");
    return true;
  }

  Json::Array parse_array(int depth) {
    Json::Array array;
    enter(depth);
    if (take(']')) return array;
    do array.push_back(parse_value(depth));
    while (more_follow(']'));
    return array;
  }

  Json::Object parse_object(int depth) {
    Json::Object object;
    const size_t start = at_;
    enter(depth);
    if (take('}')) return object;
    do {
      skip_whitespace();
      if (peek() != '"') fail("a key in quotes was expected");
      std::string key = parse_string();
      skip_whitespace();
      if (!take(':')) fail("':' was expected after a key");
      Json value = parse_value(depth);
      object.emplace_back(std::move(key), std::move(value));
    } while (more_follow('}'));
    check_keys_differ(object, start);
    return object;
  }

  void check_keys_differ(const Json::Object& object, size_t start) {
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const auto& [key, value] : object) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice == keys.end()) return;
    at_ = start;
    fail("the object that starts here has the key '" + std::string(twice->substr(0, 96)) + "' twice");
  }

  std::string parse_string() {
    std::string out;
    ++at_;
    while (!take('"')) {
      if (at_ == text_.size()) fail("a string does not end");
      const unsigned char c = static_cast<unsigned char>(text_[at_]);
      if (c == '\\') {
        parse_escape(out);
        continue;
      }
      if (c < 0x20) fail("a string holds an unescaped control character");
      const size_t length = utf8_character(text_.substr(at_));
      if (length == 0) fail("a string is not valid UTF-8");
      out.append(text_, at_, length);
      at_ += length;
    }
    return out;
  }

  void parse_escape(std::string& out) {
    ++at_;
    constexpr std::string_view kLetters = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (const size_t i = at_ < text_.size() ? kLetters.find(text_[at_]) : std::string_view::npos;
        i != std::string_view::npos) {
      out += kMeanings[i];
      ++at_;
      return;
    }
    if (!take('u')) fail("unknown escape in a string");
    uint32_t code = parse_hex4();
    if (code >= 0xdc00 && code <= 0xdfff) fail("a low surrogate without its high surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
      const uint32_t low = take('\\') && take('u') ? parse_hex4() : 0;
      if (low < 0xdc00 || low > 0xdfff) fail("a high surrogate without its low surrogate");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    append_utf8(code, out);
  }

  uint32_t parse_hex4() {
    uint32_t code = 0;
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + std::min(at_ + 4, text_.size());
    if (const auto parsed = std::from_chars(begin, end, code, 16); end - begin != 4 || parsed.ptr != end)
      fail("\\u needs four hexadecimal digits");
    at_ += 4;
    return code;
  }

  static void append_utf8(uint32_t code, std::string& out) {
    if (code < 0x80) {
      out += char(code);
      return;
    }
    const int tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;  // continuation bytes
    constexpr uint8_t kLead[] = {0, 0xc0, 0xe0, 0xf0};
    out += char(kLead[tail] | code >> 6 * tail);
    for (int i = tail - 1; i >= 0; --i) out += char(0x80 | ((code >> 6 * i) & 0x3f));
  }

  bool take_digits() {
    const size_t start = at_;
    while (peek() >= '0' && peek() <= '9') ++at_;
    return at_ > start;
  }

  // The grammar is checked here because from_chars accepts more than JSON does.
  void parse_number(Json& json) {
    const size_t start = at_;
    take('-');
    if (!take('0') && !take_digits()) fail("a value was expected");
    bool integral = true;
    if (take('.')) {
      integral = false;
      if (!take_digits()) fail("digits were expected after the decimal point");
    }
    if (take('e') || take('E')) {
      integral = false;
      if (!take('-')) take('+');
      if (!take_digits()) fail("digits were expected in the exponent");
    }
    const char *begin = text_.data() + start, *end = text_.data() + at_;
    int64_t integer;
    if (integral && std::from_chars(begin, end, integer).ec == std::errc()) {
      json.value_ = integer;
      return;
    }
    double number;
    if (std::from_chars(begin, end, number).ec != std::errc()) fail("the number before is out of range");
    json.value_ = number;
  }

  const std::string_view text_;
  const Json::Limits limits_;
  size_t at_ = 0;
  size_t values_ = 0;
};

Json Json::parse(std::string_view text, const Limits& limits) {
  return JsonParser(text, limits).parse_document();
}

std::optional<bool> Json::boolean() const {
  if (const bool* value = std::get_if<bool>(&value_)) return *value;
  return std::nullopt;
}

std::optional<int64_t> Json::integer() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return *value;
  return std::nullopt;
}

std::optional<double> Json::number() const {
  if (const int64_t* value = std::get_if<int64_t>(&value_)) return double(*value);
  if (const double* value = std::get_if<double>(&value_)) return *value;
  return std::nullopt;
}

const Json* Json::find(std::string_view key) const {
  if (const Object* members = object())
    for (const auto& [name, value] : *members)
      if (name == key) return &value;
  return nullptr;
}

}  // namespace maestrale
