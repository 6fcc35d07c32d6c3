// SPDX-License-Identifier: Apache-2.0
// A test harness small enough to need no download: TEST registers a case, CHECK* throw on failure.
// The binary lists its cases (--list) and runs those whose names contain its argument; the vitest
// suite runs every case in a process of its own, so a crash fails exactly that case.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace maestrale::test {

// Folder of the reference data, tests/vectors.
extern const char* const kVectors;

struct Case {
  std::string name;
  std::function<void()> body;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Registration {
  Registration(std::string name, std::function<void()> body) {
    cases().push_back({std::move(name), std::move(body)});
  }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& message) {
  std::ostringstream out;
  out << file << ":" << line << ": " << message;
  throw std::runtime_error(out.str());
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out << text << ": " << a << " != " << b;
  fail(file, line, out.str());
}

}  // namespace maestrale::test

#define MAESTRALE_CONCAT2(a, b) a##b
#define MAESTRALE_CONCAT(a, b) MAESTRALE_CONCAT2(a, b)
#define TEST(name)                                                                    \
  static void MAESTRALE_CONCAT(test_body_, __LINE__)();                               \
  static const ::maestrale::test::Registration MAESTRALE_CONCAT(test_reg_, __LINE__)( \
      name, MAESTRALE_CONCAT(test_body_, __LINE__));                                  \
  static void MAESTRALE_CONCAT(test_body_, __LINE__)()
#define CHECK(condition)                                                                    \
  do {                                                                                      \
    if (!(condition)) ::maestrale::test::fail(__FILE__, __LINE__, "not true: " #condition); \
  } while (0)
#define CHECK_EQ(a, b) ::maestrale::test::check_equal((a), (b), #a " == " #b, __FILE__, __LINE__)
// The statement must throw maestrale::Error with this code.
#define CHECK_THROWS(statement, expected)                                                        \
  do {                                                                                           \
    bool thrown = false;                                                                         \
    try {                                                                                        \
      statement;                                                                                 \
    } catch (const ::maestrale::Error& error) {                                                  \
      thrown = true;                                                                             \
      if (error.code() != (expected))                                                            \
        ::maestrale::test::fail(__FILE__, __LINE__, std::string("wrong code: ") + error.what()); \
    }                                                                                            \
    if (!thrown) ::maestrale::test::fail(__FILE__, __LINE__, "did not throw: " #statement);      \
  } while (0)
