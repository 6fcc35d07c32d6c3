// SPDX-License-Identifier: Apache-2.0
// What the kernels that multiply are given, the same on both sides.
#pragma once

#include "cuda/head_args.h"

namespace maestrale::cuda {

enum class Epilogue : int {
  kStore,   // out = x * weight^T for every part
  kAdd,     // out += x * weight^T
  kSwiGlu,  // out of part 0 = silu(x * weight 0^T) .* (x * weight 1^T), quantised too
  kHeads,   // as kStore, then each head of out goes where its role says
};

struct MatmulArgs {
  struct Part {
    const unsigned char* weight;  // stripes, see tile_layout.h
    float* out;                   // (rows, features)
    int features;
    Role role;  // of kHeads
  } part[3];
  const unsigned char* records;  // (rows, units) of activations, see tile_layout.h
  unsigned char* next_records;   // of kSwiGlu: where the output's own records go, or null
  int* arrivals;                 // zeros, one for each unit or head of the output and tile of kTileRows rows
  HeadArgs heads;                // of kHeads
  int n_heads;                   // of kHeads, in all parts
  int rows;
  int units;
  Epilogue epilogue;
};

// Of up to three weights in F32.
struct F32Args {
  const float* weight[3];  // (features, cols)
  float* out[3];           // (rows, features)
  int features[3];
  int rows;
  const float* x;  // (rows, cols)
  int cols;
  int adds;  // to what out holds, or replaces it
};

// Rows that the kernels take at once.
inline constexpr int kFewRows = 8, kManyRows = 32, kMostRows = 64, kTileRows = 64;
// Stripes that a block takes.
inline constexpr int kFewStripes = 4, kMostStripes = 2, kTileStripes = 8;

}  // namespace maestrale::cuda
