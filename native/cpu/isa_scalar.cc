// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"
#include "cpu/simd_scalar.h"

namespace maestrale {

constinit const Kernels kScalarKernels = make_kernels<simd_scalar::V>("scalar");

}  // namespace maestrale
