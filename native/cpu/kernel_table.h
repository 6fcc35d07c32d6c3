// SPDX-License-Identifier: Apache-2.0
// Fills a table of kernels for one instruction set V. Included by the isa_*.cc files only, each of
// which is compiled with the flags of its instruction set; everything here is a template over V, so
// no function of one instruction set can be linked in place of another's.
#pragma once

#include "backend/kv_config.h"
#include "cpu/attention_tile.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/vector_ops.h"

namespace maestrale {

template <class V>
constexpr Kernels make_kernels(const char* name) {
  Kernels k{};
  k.name = name;
  k.gemm[int(QuantType::kF32)] = gemm<V, FormatF32<V>>;
  k.gemm[int(QuantType::kF16)] = gemm<V, FormatF16<V>>;
  k.gemm[int(QuantType::kBF16)] = gemm<V, FormatBF16<V>>;
  k.gemm[int(QuantType::kQ4_0)] = gemm<V, FormatQ4_0<V>>;
  k.gemm[int(QuantType::kQ4_1)] = gemm<V, FormatQ4_1<V>>;
  k.gemm[int(QuantType::kQ5_0)] = gemm<V, FormatQ5_0<V>>;
  k.gemm[int(QuantType::kQ5_1)] = gemm<V, FormatQ5_1<V>>;
  k.gemm[int(QuantType::kQ8_0)] = gemm<V, FormatQ8_0<V>>;
  k.gemm[int(QuantType::kQ2_K)] = gemm<V, FormatQ2_K<V>>;
  k.gemm[int(QuantType::kQ3_K)] = gemm<V, FormatQ3_K<V>>;
  k.gemm[int(QuantType::kQ4_K)] = gemm<V, FormatQ4_K<V>>;
  k.gemm[int(QuantType::kQ5_K)] = gemm<V, FormatQ5_K<V>>;
  k.gemm[int(QuantType::kQ6_K)] = gemm<V, FormatQ6_K<V>>;
  k.gemm[int(QuantType::kIQ4_NL)] = gemm<V, FormatIQ4_NL<V>>;
  k.gemm[int(QuantType::kIQ4_XS)] = gemm<V, FormatIQ4_XS<V>>;
  k.gemm[int(QuantType::kNF4)] = gemm<V, FormatNF4<V>>;
  k.gemm[int(QuantType::kFP4)] = gemm<V, FormatFP4<V>>;
  k.quantize_q256 = quantize_q256<V>;
  k.quantize_q64 = quantize_q64<V>;
  k.quantize_q128 = quantize_q128<V>;
  k.rms_norm = rms_norm<V>;
  k.swiglu = swiglu<V>;
  k.rope = rope<V>;
  k.scale = scale<V>;
  k.to_i8 = quantize_i8<V>;
  k.value_to_i16 = quantize_value<V>;
  k.vector_to_i16 = quantize_vector<V>;
  k.attend_i16 = attend<V, KvI16<V>>;
  k.attend_i8 = attend<V, KvI8<V>>;
  k.merge_attention = merge_attention<V>;
  return k;
}

}  // namespace maestrale
