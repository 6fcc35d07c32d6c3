// SPDX-License-Identifier: Apache-2.0
// What the kernels that multiply with quantised weights are given, the same on both sides.
#pragma once

namespace maestrale::cuda {

enum class Epilogue : int {
  kStore,   // out = x * weight^T for every part
  kAdd,     // out += x * weight^T
  kSwiGlu,  // out of part 0 = silu(x * weight 0^T) .* (x * weight 1^T)
};

struct MatmulArgs {
  struct Part {
    const unsigned char* weight;  // stripes, see tile_layout.h
    float* out;                   // (rows, features)
    long long features;
  } part[3];
  const unsigned char* records;  // (rows, units) of activations, see tile_layout.h
  unsigned char* next_records;   // of kSwiGlu: where the output's own records go, or null
  int* arrivals;                 // zeros, one for each unit of the output and tile of kTileRows rows
  int n_parts;                   // of one type
  int rows;
  int units;
  Epilogue epilogue;
};

// Rows that the kernels take at once.
inline constexpr int kFewRows = 8, kManyRows = 32, kTileRows = 64, kTileStripes = 8;

}  // namespace maestrale::cuda
