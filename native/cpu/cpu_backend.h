// SPDX-License-Identifier: Apache-2.0
// The CPU implementation of Backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace maestrale {

struct CpuOptions {
  int32_t threads = 0;  // 0: as many as the CPUs this process may use
  std::string isa;      // force a kernel table by name; "": $MAESTRALE_ISA, else the best of the machine
};

// Throws Error{kInvalidArg} for an unknown table, Error{kDevice} for one this machine cannot run.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

// Names of the kernel tables this machine can run, best first; the last one is "scalar".
std::vector<std::string> available_isas();

}  // namespace maestrale
