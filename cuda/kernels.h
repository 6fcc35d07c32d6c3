// SPDX-License-Identifier: Apache-2.0
// The launchers: which kernel takes what. Pointers are device addresses; shapes are in cuda/kernels.
#pragma once

#include <array>

#include "backend/backend.h"
#include "cuda/kernel_module.h"
#include "cuda/low_rank_args.h"
#include "cuda/matmul_args.h"

namespace maestrale::cuda {

// Queries that share a block; lies on the device as cuda/kernels/attention.cuh declares it.
struct QueryTile {
  int32_t first_row, n_rows;
  int64_t first_position;
  int32_t first_page;  // absolute number of the first page of the sequence's table
  int32_t table;       // where the table begins in the array of page ids
};

struct Kernels {
  explicit Kernels(const KernelModule& module);

  using Address = DevicePointer;
  // By position in kQuantTraits.
  std::array<Kernel<Address, Address, Address, int, int64_t>, kQuantTraits.size()> embed;
  std::array<Kernel<Address, Address, int, int, int64_t>, kQuantTraits.size()> repack;
  Kernel<F32Args> matmul_f32;
  // By the number of rows: one, kFewRows, kManyRows, kMostRows, more. Of F16 and BF16 there are
  // matmul_few and matmul_many.
  std::array<Kernel<MatmulArgs>, kQuantTraits.size()> matmul_row, matmul_few, matmul_many, matmul_most,
      matmul_tile;
  // By the form of the activations: a scale for 256 or for 32 columns, the latter in 8 or 14 bits; halves.
  std::array<Kernel<Address, Address, int, int>, 4> quantize;
  std::array<Kernel<Address, Address, Address, int, int, float>, 4> norm_quantize;
  Kernel<Address, Address, Address, int, float> rms_norm;
  Kernel<Address, Address, int64_t> silu_multiply;
  Kernel<LowRankArgs, float> low_rank_down;
  Kernel<LowRankArgs> low_rank_up;
  Kernel<Address, Address, Address, int, int> gather_rows;
  Kernel<Address, Address, int> top_logits;
  Kernel<Address, Address, Address> draw_token;
  Kernel<HeadArgs, Address, Address, Address, int, int> rope_append;
  // By KvType, head_dim (at most 32, 128), matrix rows of a block (16, 64).
  using AttentionKernel =
      Kernel<Address, Address, Address, Address, Address, int64_t, int64_t, int, int, int64_t, float>;
  using SplitAttentionKernel = Kernel<Address, Address, Address, Address, Address, int64_t, int64_t, int, int,
                                      int64_t, float, Address, Address, int>;
  std::array<std::array<std::array<AttentionKernel, 2>, 2>, 3> attention;
  std::array<std::array<std::array<SplitAttentionKernel, 2>, 2>, 3> split_attention;
};

// The position of a type in kQuantTraits.
size_t type_index(QuantType type);

}  // namespace maestrale::cuda
