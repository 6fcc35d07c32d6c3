// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernel_table.h"
#include "cpu/simd_avx512.h"

namespace maestrale {

constinit const Kernels kAvx512VnniKernels = make_kernels<simd_avx512::V>("avx512vnni");

}  // namespace maestrale
