// SPDX-License-Identifier: Apache-2.0
// No instruction ships that no test knows: what the engine's own PTX consists of against what the tests of
// instruction forms, control flow and checks run. Where nvcc is missing there is no such PTX.
#include <fstream>
#include <sstream>

#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

TEST("ptxsim coverage: every instruction form of the engine's kernels has a test") {
  for (const maestrale::test::Case& other : maestrale::test::cases())
    for (const char* kind : {"forms", "control", "checks"})
      if (other.name.starts_with("ptxsim " + std::string(kind) + ":")) other.body();
  CHECK(simulated_forms().size() > 500);
  std::string missing;
  for (const int arch : {75, 80}) {
    std::ifstream file(std::string(PTXSIM_SHIPPED) + "/kernels_" + std::to_string(arch) + ".ptx");
    if (!file.good()) return;
    std::stringstream text;
    text << file.rdbuf();
    std::set<std::string> shipped;
    const Module module = parse_ptx(text.str());
    for (const Function& function : module.functions)
      for (const Instruction& instruction : function.body) shipped.insert(form_of(instruction));
    CHECK(shipped.size() > 100);
    for (const std::string& form : shipped)
      if (!simulated_forms().contains(form)) missing += " " + form;
  }
  if (!missing.empty()) maestrale::test::fail(__FILE__, __LINE__, "no test has" + missing);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
