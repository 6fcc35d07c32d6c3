// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"
#include "cpu/kernel_table.h"
#include "cpu/simd_neon.h"

namespace maestrale {

constinit const Kernels kNeonKernels = make_kernels<simd_neon::V>("neon");

}  // namespace maestrale
