// SPDX-License-Identifier: Apache-2.0
// maestrale_tests [--list | NAME-PART]; exit code 1 when a case failed.
#include <cstdio>
#include <cstring>
#include <exception>

#include "check.h"

#ifdef MAESTRALE_TEST_VECTORS  // the simulator's own tests have none
const char* const maestrale::test::kVectors = MAESTRALE_TEST_VECTORS;
#endif

int main(int argc, char** argv) {
  const char* filter = argc > 1 ? argv[1] : "";
  int passed = 0, failed = 0;
  for (const auto& test : maestrale::test::cases()) {
    if (std::strcmp(filter, "--list") == 0) {
      std::printf("%s\n", test.name.c_str());
      continue;
    }
    if (test.name.find(filter) == std::string::npos) continue;
    try {
      test.body();
      ++passed;
    } catch (const std::exception& error) {
      ++failed;
      std::fprintf(stderr, "FAILED %s\n  %s\n", test.name.c_str(), error.what());
    }
  }
  if (std::strcmp(filter, "--list") != 0) std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && (passed > 0 || std::strcmp(filter, "--list") == 0) ? 0 : 1;
}
