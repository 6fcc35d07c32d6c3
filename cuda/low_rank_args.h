// SPDX-License-Identifier: Apache-2.0
// What the kernels of LoRA adapters are given, the same on both sides. Which adapter a row has lies in the
// memory of the device, so steps of as many rows are the same launches whatever their adapters are.
#pragma once

#include "cuda/matmul_args.h"

namespace maestrale::cuda {

using GlobalAddress = unsigned long long;  // of device memory

enum class FactorType : int { kF32, kF16, kBF16 };

inline constexpr int kPieceBytes = 16;

// What an adapter makes of one product, see LowRank.
struct alignas(16) Delta {
  GlobalAddress lora_a;  // (rank, cols) as stored; 0: nothing
  // (features, rank rounded up to kRankStep) in pieces of kPieceBytes: the first ones of all features, their
  // second, ... A thread takes a feature, so what a warp loads at once lies together.
  GlobalAddress lora_b;
  GlobalAddress factor;  // (features) floats, or 0
  float scaling;
  int rank;
  FactorType a_type, b_type;
  GlobalAddress unused;
};

// Neighbouring rows of one adapter or of none, at most kSegmentRows.
struct alignas(16) Segment {
  GlobalAddress deltas;  // of the adapter, by the numbers of products; 0: none
  GlobalAddress
      down;  // (rows of a batch, 3, down_rank) floats of the adapter's own: down[r][p] = scaling * x A^T
  int down_rank;
  int first_row, n_rows;
  int unused;
};

// kStore: the outputs of the parts become what the adapters make of them; kAdd: that of part 0 is added to
// `target`; kSwiGlu: target = silu(part 0) .* part 1.
struct LowRankArgs {
  struct Part {
    float* out;  // (rows, features)
    int number;  // of the product
    int features;
  } part[3];
  float* target;      // of kAdd and kSwiGlu, as part[0].out
  const float* x;     // (rows, cols)
  const float* norm;  // the weight of an RMSNorm that x is still to go through, or null
  const Segment* segments;
  int cols;
  int n_parts;
  Epilogue epilogue;
  int unused;
};

inline constexpr int kSegmentRows = 8;
// Rows of lora_a that a block of low_rank_down takes at a time, and blocks for a product.
inline constexpr int kDownRanks = 8, kDownBlocks = 8;
inline constexpr int kDownThreads = 256, kUpThreads = 128;  // of a block

}  // namespace maestrale::cuda
