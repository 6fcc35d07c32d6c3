// SPDX-License-Identifier: Apache-2.0
// Chooses the kernel table: the best this machine runs, or the one that was asked for.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace maestrale {

// The tables of arm64; those of x86-64 and the scalar one are named in kernels.h.
extern const Kernels kNeonKernels;
extern const Kernels kNeonI8mmKernels;

// `name`: a table by name, or "" for $MAESTRALE_ISA and then the best. Throws Error{kInvalidArg} for a name
// that does not exist, Error{kDevice} for a table this machine cannot run.
const Kernels& select_kernels(const std::string& name);

}  // namespace maestrale
