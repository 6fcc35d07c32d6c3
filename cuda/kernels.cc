// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernels.h"

#include <string>

namespace maestrale::cuda {

size_t type_index(QuantType type) { return size_t(&quant_traits(type) - kQuantTraits.data()); }

Kernels::Kernels(const KernelModule& module)
    : matmul_f32(module, "matmul_f32"),
      rms_norm(module, "rms_norm"),
      silu_multiply(module, "silu_multiply"),
      low_rank_down(module, "low_rank_down"),
      low_rank_up(module, "low_rank_up"),
      gather_rows(module, "gather_rows"),
      top_logits(module, "top_logits"),
      draw_token(module, "draw_token"),
      rope_append(module, "rope_append") {
  for (size_t i = 0; i < kQuantTraits.size(); ++i) {
    const std::string type = lower_case_name(kQuantTraits[i].type);
    if (is_gguf_type(kQuantTraits[i].type)) embed[i] = {module, "embed_" + type};  // no others hold tables
    if (kQuantTraits[i].type == QuantType::kF32) continue;
    repack[i] = {module, "repack_" + type};
    matmul_few[i] = {module, "matmul_few_" + type};
    matmul_many[i] = {module, "matmul_many_" + type};
    matmul_tile[i] = {module, "matmul_tile_" + type};
    if (kQuantTraits[i].items_per_block == 1) continue;
    matmul_row[i] = {module, "matmul_row_" + type};
    matmul_most[i] = {module, "matmul_most_" + type};
  }
  const char* forms[] = {"q256", "q32", "q32_wide", "halves"};
  for (size_t i = 0; i < 4; ++i) {
    quantize[i] = {module, std::string("quantize_") + forms[i]};
    norm_quantize[i] = {module, std::string("norm_quantize_") + forms[i]};
  }
  const char *kv_types[] = {"f16", "bf16", "q8_0"}, *head_dims[] = {"_32", "_128"}, *rows[] = {"_16", "_64"};
  for (size_t i = 0; i < 3; ++i)
    for (size_t d = 0; d < 2; ++d)
      for (size_t r = 0; r < 2; ++r) {
        const std::string name = std::string("attention_") + kv_types[i] + head_dims[d] + rows[r];
        attention[i][d][r] = {module, name};
        split_attention[i][d][r] = {module, "split_" + name};
      }
}

}  // namespace maestrale::cuda
