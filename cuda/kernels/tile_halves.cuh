// SPDX-License-Identifier: Apache-2.0
// Activations in halves as matmul_tile streams them through shared memory, 64 columns of 64 rows at a time.
//
// A row takes 256 bytes, upper halves before lower ones; the 16-byte pieces of odd rows change places by
// fours, so that eight lanes with two rows of a fragment use all banks.
#pragma once

#include "halves.cuh"
#include "tile_copy.cuh"

namespace maestrale::device {

struct HalfPieces {
  struct __align__(16) Buffer { Byte halves[kTileRows * 256]; };
  static constexpr int kParts = 16, kUnitSteps = 4;
  static __device__ int from(int part) { return (part >> 3) * kLowerHalves + 16 * (part & 7); }
  static __device__ int from_step(int step) {
    return step / kUnitSteps * kHalfRecordBytes + 128 * (step % kUnitSteps);
  }
  static __device__ int to(int row, int part) { return 256 * row + 16 * (part ^ 4 * (row & 1)); }
};

// The rows of a buffer, as multiply_halves() and scale_sums() read them.
struct SharedHalves {
  const HalfPieces::Buffer& buffer;
  const float* scales;  // of the rows, for the unit
  int lane;
  __device__ uint4 piece(int g, int part) const {
    const int row = 8 * g + (lane >> 2);
    return *reinterpret_cast<const uint4*>(buffer.halves + 256 * row +
                                           16 * ((part + (lane & 3)) ^ (lane & 4)));
  }
  __device__ uint4 upper(int g, int j) const { return piece(g, 4 * j); }
  __device__ uint4 lower(int g, int j) const { return piece(g, 4 * j + 8); }
  __device__ float scale(int g, int i) const { return scales[8 * g + 2 * (lane & 3) + i]; }
};

// See matmul_tile.
template <class Tiled>
class HalfStream {
  static constexpr int kGroups = kTileRows / 8, kSteps = HalfPieces::kUnitSteps;

 public:
  struct Shared {
    HalfPieces::Buffer buffers[2];
    float scales[kTileRows];
  };
  __device__ HalfStream(Shared& shared, const MatmulArgs& args, int first_row)
      : shared_(shared),
        steps_(args.units * kSteps),
        copy_(shared.buffers, args.records, first_row, args.rows, args.units * kHalfRecordBytes),
        record_(args.records + (long long)min(first_row + int(threadIdx.x), args.rows - 1) * args.units *
                                   kHalfRecordBytes) {}
  __device__ void begin() { copy_.start(0, 0); }
  __device__ void multiply(const Byte* unit, int u, int groups, int lane, float (&f)[1][kGroups][4]) {
    float sums[1][kGroups][4] = {};
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
      const int step = kSteps * u + t, b = t & 1;
      copy_.finish(b);
      __syncthreads();
      if (step + 1 < steps_) copy_.start(b ^ 1, step + 1);
      // Nobody reads those of the unit before any more, and the next barrier comes before these are read.
      if (t == 0 && threadIdx.x < kTileRows)
        shared_.scales[threadIdx.x] =
            __ldg(reinterpret_cast<const float*>(record_ + (u * kHalfRecordBytes + kHalfScale)));
      const SharedHalves rows = {shared_.buffers[b], shared_.scales, lane};
      multiply_halves<Tiled, 2>({unit}, 2 * t, rows, groups, lane, sums);
      if (t == kSteps - 1) scale_sums<Tiled>({unit}, rows, groups, lane, sums, f);
    }
  }

 private:
  Shared& shared_;
  int steps_;
  TileCopy<HalfPieces> copy_;
  const Byte* record_;  // the first one of row threadIdx.x
};

}  // namespace maestrale::device
