// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"
#include "cpu/kernel_table.h"
#include "cpu/simd_neon.h"

namespace maestrale {

constinit const Kernels kNeonI8mmKernels = make_kernels<simd_neoni8mm::V>("neon-i8mm");

}  // namespace maestrale
