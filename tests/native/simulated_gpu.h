// SPDX-License-Identifier: Apache-2.0
// The simulated GPU as the driver of this process.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "check.h"

namespace maestrale::test {

template <class F>
F* simulator(const char* name) {
  static void* library = dlopen(PTXSIM_DRIVER, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != nullptr);
  return reinterpret_cast<F*>(dlsym(library, name));
}

// The simulated driver for the rest of the process, set up as `settings` say.
inline void use_simulator(const char* settings) {
  setenv("MAESTRALE_CUDA_DRIVER", PTXSIM_DRIVER, 1);
  CHECK_EQ(simulator<int(const char*)>("ptxsim_configure")(settings), 0);
}

inline std::string simulator_report() { return simulator<const char*()>("ptxsim_report")(); }

// A number of the report: calls of a function since the latest ptxsim_reset, things of a kind that exist; 0
// where it is not there.
inline int64_t reported(const std::string& name) {
  const std::string report = simulator_report(), key = "\"" + name + "\":";
  const size_t at = report.find(key);
  return at == report.npos ? 0 : std::stoll(report.substr(at + key.size()));
}

// A counter of one kernel since the latest ptxsim_reset; 0 where it has not run.
inline int64_t counter(const std::string& kernel, const std::string& name) {
  const std::string report = simulator_report(), key = "\"" + name + "\":";
  const size_t begin = report.find("\"" + kernel + "\":{");
  return begin == report.npos ? 0 : std::stoll(report.substr(report.find(key, begin) + key.size()));
}

// Launches of all kernels since the latest ptxsim_reset.
inline int64_t kernel_launches() {
  const std::string report = simulator_report(), key = "\"launches\":";
  int64_t sum = 0;
  for (size_t at = report.find(key); at != report.npos; at = report.find(key, at + 1))
    sum += std::atoi(report.c_str() + at + key.size());
  return sum;
}

inline void check_nothing_leaks() {
  const std::string report = simulator_report();
  const std::string none =
      "\"leaks\":{\"allocations\":0,\"bytes\":0,\"modules\":0,\"streams\":0,\"events\":0,\"graphs\":0,"
      "\"graphExecs\":0,\"hostAllocations\":0,\"contexts\":0,\"abandoned\":0}";
  if (report.find(none) == report.npos)
    fail(__FILE__, __LINE__, "leaks: " + report.substr(report.find("\"leaks")));
}

}  // namespace maestrale::test
