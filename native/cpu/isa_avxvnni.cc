// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"
#include "cpu/simd_avx2.h"

namespace maestrale {

constinit const Kernels kAvxVnniKernels = make_kernels<simd_avxvnni::V>("avxvnni");

}  // namespace maestrale
