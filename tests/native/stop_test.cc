// SPDX-License-Identifier: Apache-2.0
// Stop strings across any cut of the text.
#include <algorithm>

#include "base/error.h"
#include "check.h"
#include "sampling/stop_matcher.h"

using namespace maestrale;

namespace {

struct Outcome {
  std::string text;
  int matched;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces)
    if (matcher.push(piece, outcome.text)) break;
  matcher.flush(outcome.text);
  outcome.matched = matcher.matched();
  return outcome;
}

// By definition: at the first end of any stop string, cut before the longest that ends there.
Outcome by_definition(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i)
      if (text.substr(0, end).ends_with(stops[i]) &&
          (best < 0 || stops[i].size() > stops[size_t(best)].size()))
        best = int(i);
    if (best >= 0) return {text.substr(0, end - stops[size_t(best)].size()), best};
  }
  return {text, -1};
}

}  // namespace

TEST("stop: text is cut before the match, whatever the cuts") {
  const std::vector<std::string> stops = {"</s>", "\n\n", "User:"};
  const std::string text = "Hi\nUser you < </ </s> more\n\n";
  for (size_t i = 0; i <= text.size(); ++i)
    for (size_t j = i; j <= text.size(); ++j) {
      const Outcome got = run(stops, {text.substr(0, i), text.substr(i, j - i), text.substr(j)});
      CHECK_EQ(got.text, "Hi\nUser you < </ ");
      CHECK_EQ(got.matched, 0);
    }
}

TEST("stop: overlapping stops, the first completed wins, the longer of two that end together") {
  CHECK((run({"abcd", "bc"}, {"xabcd"}) == Outcome{"xa", 1}));
  CHECK((run({"bc", "abc"}, {"xab", "c"}) == Outcome{"x", 1}));
  CHECK((run({"aab"}, {"aaa", "ab"}) == Outcome{"aa", 0}));
  CHECK((run({"abac", "b"}, {"a"}) == Outcome{"a", -1}));
  CHECK((run({}, {"text"}) == Outcome{"text", -1}));
}

TEST("stop: only what may become a match is held back") {
  StopMatcher matcher({"END", "\xE2\x82\xAC!"});
  std::string out;
  CHECK(!matcher.push("THE E", out));
  CHECK_EQ(out, "THE ");
  CHECK(!matcher.push("N", out));
  CHECK_EQ(matcher.held_back(), 2u);
  CHECK(!matcher.push("E", out));
  CHECK_EQ(out, "THE EN");
  CHECK(!matcher.push(" \xE2\x82\xAC", out));  // a whole character is held, never a part of one
  CHECK_EQ(out, "THE ENE ");
  CHECK(matcher.push("! and on", out));
  CHECK(matcher.push("more", out));
  matcher.flush(out);
  CHECK_EQ(out, "THE ENE ");
  CHECK_EQ(matcher.matched(), 1);
}

TEST("stop: random texts over a small alphabet agree with the definition") {
  uint32_t state = 7;
  const auto next = [&](uint32_t n) {
    state = state * 1664525 + 1013904223;
    return (state >> 16) % n;
  };
  const auto word = [&](uint32_t length) {
    std::string out;
    for (uint32_t i = 0; i < length; ++i) out.push_back(char('a' + next(2)));
    return out;
  };
  int matches = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::string> stops, pieces;
    for (uint32_t i = next(4); i-- > 0;) stops.push_back(word(2 + next(6)));
    std::string text;
    for (uint32_t i = next(8); i-- > 0;) text += pieces.emplace_back(word(next(5)));
    const Outcome expected = by_definition(stops, text), got = run(stops, pieces);
    if (!(got == expected)) test::fail(__FILE__, __LINE__, text + ": " + got.text + " != " + expected.text);
    matches += got.matched >= 0;
  }
  CHECK(matches > 500 && matches < 4500);
}

TEST("stop: limits") {
  CHECK_THROWS(StopMatcher({""}), ErrorCode::kInvalidArg);
  CHECK_THROWS(StopMatcher(std::vector<std::string>(65, "x")), ErrorCode::kInvalidArg);
  CHECK_THROWS(StopMatcher({std::string(1025, 'x')}), ErrorCode::kInvalidArg);
  StopMatcher matcher(std::vector<std::string>(64, std::string(1023, 'a') + "b"));
  std::string out;
  for (int i = 0; i < 1000; ++i) CHECK(!matcher.push(std::string(100, 'a'), out));
  CHECK_EQ(out.size() + matcher.held_back(), 100'000u);
  CHECK(matcher.held_back() <= 1023);
}
