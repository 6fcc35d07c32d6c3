// SPDX-License-Identifier: Apache-2.0
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/simd_avx512bf16.h"

namespace maestrale {

void gemm_avx512bf16(const GemmJob& job) { gemm<simd_avx512bf16::V, FormatBF16Pairs>(job); }

}  // namespace maestrale
