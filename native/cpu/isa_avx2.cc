// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"
#include "cpu/simd_avx2.h"

namespace maestrale {

constinit const Kernels kAvx2Kernels = make_kernels<simd_avx2::V>("avx2");

}  // namespace maestrale
