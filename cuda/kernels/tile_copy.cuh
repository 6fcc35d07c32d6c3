// SPDX-License-Identifier: Apache-2.0
// Two buffers of shared memory through which a block of 256 threads streams the records of 64 rows, a unit at
// a time: with cp.async where there is one (8.0), else through registers (7.5). In either case
//
//   start(b, unit)   begins to fetch into buffer b; nobody may read it any more
//   finish(b)        ends it; a barrier then makes the buffer everybody's
//
// Codes: 256 bytes a row; the 16-byte pieces of odd rows change places by fours, so that eight lanes with two
// rows of a fragment use all banks. Tails: each part by itself, 16 bytes a row.
#pragma once

#include "cuda/matmul_args.h"
#include "dot.cuh"

namespace maestrale::device {

constexpr int kPartBytes = 16 * kTileRows + 16;  // the 16 keep writers of one row apart
struct __align__(16) TileBuffer {
  Byte codes[kTileRows * kUnitCols];
  Byte tails[4 * kPartBytes];
};

class TileCopy {
 public:
  __device__ TileCopy(TileBuffer* buffers, const Byte* records, int first_row, int rows, int units)
      : buffers_(buffers) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = threadIdx.x + 256 * i, row = piece / 20, part = piece % 20;
      const int source = min(first_row + row, rows - 1);
      from_[i] = records + ((long long)source * units * kRecordBytes + 16 * part);
      to_[i] = part < 16 ? row * kUnitCols + 16 * (part ^ 4 * (row & 1))
                         : int(sizeof TileBuffer::codes) + (part - 16) * kPartBytes + 16 * row;
    }
  }

#if __CUDA_ARCH__ >= 800
  __device__ void start(int b, int unit) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const unsigned to = unsigned(__cvta_generic_to_shared(&buffers_[b])) + to_[i];
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                   "l"(__cvta_generic_to_global(from_[i] + unit * kRecordBytes))
                   : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  __device__ void finish(int) { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
#else
  __device__ void start(int, int unit) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) held_[i] = load16(from_[i] + unit * kRecordBytes);
  }
  __device__ void finish(int b) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      *reinterpret_cast<uint4*>(reinterpret_cast<Byte*>(&buffers_[b]) + to_[i]) = held_[i];
  }
#endif

 private:
  static constexpr int kPieces = kTileRows * kRecordBytes / 16 / 256;
  TileBuffer* buffers_;
  const Byte* from_[kPieces];
  int to_[kPieces];
#if __CUDA_ARCH__ < 800
  uint4 held_[kPieces];
#endif
};

// The rows of a buffer, as units_times_groups() reads them.
struct SharedRows {
  const TileBuffer &first, &buffer;  // of the unit's first record and of its last
  int lane;
  __device__ uint4 codes(const TileBuffer& from, int g, int t) const {
    const int row = 8 * g + (lane >> 2), part = (4 * t + (lane & 3)) ^ (lane & 4);
    return *reinterpret_cast<const uint4*>(from.codes + row * kUnitCols + 16 * part);
  }
  __device__ uint4 codes(int g, int t) const { return codes(first, g, t); }
  __device__ uint4 low_codes(int g, int t) const { return codes(buffer, g, t); }
  __device__ uint4 tail(int g, int j, int part) const {
    return *reinterpret_cast<const uint4*>(buffer.tails + part * kPartBytes +
                                           16 * (8 * g + 2 * (lane & 3) + j));
  }
  __device__ uint2 scales(int g, int j, int t) const {
    return *reinterpret_cast<const uint2*>(buffer.tails + (t >> 1) * kPartBytes +
                                           16 * (8 * g + 2 * (lane & 3) + j) + 8 * (t & 1));
  }
  __device__ float scale(int g, int j) const {
    return *reinterpret_cast<const float*>(buffer.tails + 3 * kPartBytes + 16 * (8 * g + 2 * (lane & 3) + j));
  }
};

}  // namespace maestrale::device
