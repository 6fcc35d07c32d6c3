// SPDX-License-Identifier: Apache-2.0
// The compiled kernels of tests/ptxsim/kernels with their inputs and what they must give. Each runs as
// one call, so that the mutator can run it on changed PTX.
#pragma once

#include <string>
#include <vector>

#include "exec/cta.h"

namespace maestrale::ptxsim::test {

std::string kernel_text(int arch);  // the PTX file for compute_<arch>
const std::vector<int>& kernel_archs();

struct KernelCase {
  const char* name;
  int min_arch;
  bool (*run)(const std::string& ptx, const Options& options);  // the result is right; throws Fault
};
const std::vector<KernelCase>& kernel_cases();

}  // namespace maestrale::ptxsim::test
