// SPDX-License-Identifier: Apache-2.0
// The launchers: which kernel takes what. Pointers are device addresses; shapes are in cuda/kernels.
#pragma once

#include <array>

#include "backend/backend.h"
#include "cuda/kernel_module.h"
#include "cuda/matmul_args.h"

namespace maestrale::cuda {

// What a row attends to; lies on the device as cuda/kernels/attention.cuh declares it.
struct Query {
  int64_t first, last;  // visible positions, both included
  int64_t first_page;   // absolute number of the first page of its table
  int64_t page;         // where its table begins in the array of page ids
};

struct Kernels {
  explicit Kernels(const KernelModule& module);

  using Address = DevicePointer;
  // By position in kQuantTraits.
  std::array<Kernel<Address, Address, Address, int, int64_t>, kQuantTraits.size()> embed;
  std::array<Kernel<Address, Address, int, int, int64_t>, kQuantTraits.size()> repack;
  // Of floating types, and of the others by the number of rows: one, kFewRows, kManyRows, more.
  std::array<Kernel<Address, Address, Address, int, int, int, int64_t, int>, kQuantTraits.size()> matmul;
  std::array<Kernel<MatmulArgs>, kQuantTraits.size()> matmul_row, matmul_few, matmul_many, matmul_tile;
  // By the form of the activations: a scale for 256 or for 32 columns.
  std::array<Kernel<Address, Address, int, int>, 2> quantize;
  std::array<Kernel<Address, Address, Address, int, int, float>, 2> norm_quantize;
  Kernel<Address, Address, Address, int, float> rms_norm;
  Kernel<Address, Address, int64_t> silu_multiply;
  Kernel<Address, Address, Address, int, int> gather_rows;
  // By KvType: kF16, kBF16.
  std::array<Kernel<Address, Address, Address, Address, Address, Address, int, int>, 2> rope_append;
  std::array<Kernel<Address, Address, Address, Address, Address, int64_t, int64_t, int, int, float>, 2>
      attention;
};

// The position of a type in kQuantTraits.
size_t type_index(QuantType type);

}  // namespace maestrale::cuda
