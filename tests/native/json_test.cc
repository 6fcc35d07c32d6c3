// SPDX-License-Identifier: Apache-2.0
// The JSON reader: what it yields, and that everything RFC 8259 does not allow is refused.
#include "base/json.h"

#include "base/error.h"
#include "base/json_text.h"
#include "check.h"

using namespace maestrale;

namespace {

void check_refused(std::string_view text) {
  try {
    Json::parse(text);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kModelFormat);
    return;
  }
  test::fail(__FILE__, __LINE__, "accepted: " + std::string(text));
}

}  // namespace

TEST("json: values of every kind") {
  const Json json = Json::parse(
      " {\"a\": [1, -2.5e3, true, false, null, \"x\"], \"big\": 9223372036854775807, \"o\": {}, \"e\": "
      "[]}\n");
  const Json::Array& array = *json.find("a")->array();
  CHECK_EQ(array.size(), 6u);
  CHECK_EQ(*array[0].integer(), 1);
  CHECK_EQ(*array[0].number(), 1.0);
  CHECK_EQ(*array[1].number(), -2500.0);
  CHECK(!array[1].integer());
  CHECK(*array[2].boolean());
  CHECK(!*array[3].boolean());
  CHECK(array[4].is_null());
  CHECK_EQ(*array[5].string(), std::string("x"));
  CHECK_EQ(*json.find("big")->integer(), INT64_MAX);
  CHECK(json.find("o")->object()->empty());
  CHECK(json.find("e")->array()->empty());
  CHECK(json.find("absent") == nullptr);
  CHECK(array[0].find("a") == nullptr);
  CHECK(!array[0].boolean() && !array[0].string() && !array[0].array() && !array[0].object());
  const Json beyond = Json::parse("9223372036854775808");
  CHECK(!beyond.integer());
  CHECK_EQ(*beyond.number(), 0x1p63);
  CHECK_EQ(json.object()->at(1).first, std::string("big"));
}

TEST("json: escapes and UTF-8") {
  CHECK_EQ(*Json::parse(R"("\"\\\/\b\f\n\r\t")").string(), std::string("\"\\/\b\f\n\r\t"));
  CHECK_EQ(*Json::parse(R"("\u0041\u00e9\u2581\ud83d\ude00")").string(),
           std::string("A\xc3\xa9\xe2\x96\x81\xf0\x9f\x98\x80"));
  CHECK_EQ(*Json::parse("\"\xe2\x96\x81\"").string(), std::string("\xe2\x96\x81"));
  CHECK_EQ(*Json::parse(R"("a\u0000b")").string(), std::string("a\0b", 3));
  for (std::string_view text :
       {R"("\ud83d")", R"("\ude00")", R"("\ud83dx")", R"("\ud83d\u0041")", R"("\u12")", R"("\u12g4")",
        R"("\u+123")", R"("\x41")", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xe2\x96\"",
        "\"a\nb\"", "\"a", "\"\\", "\"\\u"})
    check_refused(text);
}

TEST("json: what the grammar does not allow") {
  for (std::string_view text :
       {"",          " ",     "{",          "}",        "[",          "]",          "[1,]",
        "[,1]",      "[1 2]", "{\"a\"}",    "{\"a\":}", "{\"a\":1,}", "{a:1}",      "{'a':1}",
        "{\"a\" 1}", "{1:2}", "01",         "-",        "+1",         "1.",         ".5",
        "1e",        "1e+",   "0x10",       "1e400",    "-1e400",     "NaN",        "Infinity",
        "tru",       "nul",   "true false", "// c\n1",  "[1]]",       "{\"a\":1}x", "[\"a\":1]"})
    check_refused(text);
  check_refused(std::string_view("1\0", 2));
  check_refused(R"({"a":1,"b":2,"a":3})");
  check_refused(R"({"a":1,"\u0061":2})");
}

TEST("json: depth and number of values are capped") {
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK(Json::parse(nested(64)).array() != nullptr);
  CHECK_THROWS(Json::parse(nested(65)), ErrorCode::kModelFormat);
  CHECK_THROWS(Json::parse(std::string(10'000'000, '[')), ErrorCode::kModelFormat);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  CHECK_THROWS(Json::parse(objects), ErrorCode::kModelFormat);
  CHECK_THROWS(Json::parse("[0,0,0,0]", {.depth = 2, .values = 4}), ErrorCode::kModelFormat);
  CHECK_EQ(Json::parse("[0,0,0]", {.depth = 2, .values = 4}).array()->size(), 3u);
}

TEST("json_text: what is written reads back") {
  const std::string text = "\"quoted\" \\ \n\t\x01 \xe2\x96\x81 </s>";
  JsonObjectText object;
  object.add_string("text", text);
  object.add_string(text, "");
  object.add_integer("count", int64_t{-3});
  object.add_flag("flag", false);
  object.add("small", json_number(1e-5f));
  object.add("large", json_number(1e6));
  const Json json = Json::parse(object.text());
  CHECK_EQ(*json.find("text")->string(), text);
  CHECK_EQ(*json.find(text)->string(), "");
  CHECK_EQ(*json.find("count")->integer(), -3);
  CHECK(!*json.find("flag")->boolean());
  CHECK(float(*json.find("small")->number()) == 1e-5f);
  CHECK_EQ(*json.find("large")->number(), 1e6);
  CHECK(Json::parse(JsonObjectText().text()).object()->empty());
}
