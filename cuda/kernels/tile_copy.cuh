// SPDX-License-Identifier: Apache-2.0
// Copies of activations of 64 rows to one of two buffers in shared memory, by a block of 256 threads, a step
// at a time: with cp.async where there is one (8.0), else through registers (7.5). In either case
//
//   start(b, step)   begins to fetch into buffer b; nobody may read it any more
//   finish(b)        ends it; a barrier then makes the buffer everybody's
//
// Pieces says of a row's part of a step, in pieces of 16 bytes: kParts, how many; from(part) and
// from_step(step), whose sum is the offset among the row's records; to(row, part), the place in a
// Pieces::Buffer.
#pragma once

#include "cuda/matmul_args.h"
#include "tiles.cuh"

namespace maestrale::device {

template <class Pieces>
class TileCopy {
  using Buffer = typename Pieces::Buffer;

 public:
  // row_bytes: of all records of a row. Rows behind the last stand for it.
  __device__ TileCopy(Buffer* buffers, const Byte* records, int first_row, int rows, int row_bytes)
      : buffers_(buffers) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = threadIdx.x + 256 * i, row = piece / Pieces::kParts, part = piece % Pieces::kParts;
      from_[i] = records + ((long long)min(first_row + row, rows - 1) * row_bytes + Pieces::from(part));
      to_[i] = Pieces::to(row, part);
    }
  }

#if __CUDA_ARCH__ >= 800
  __device__ void start(int b, int step) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const unsigned to = unsigned(__cvta_generic_to_shared(&buffers_[b])) + to_[i];
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to),
                   "l"(__cvta_generic_to_global(from_[i] + Pieces::from_step(step)))
                   : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  __device__ void finish(int) { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
#else
  __device__ void start(int, int step) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i) held_[i] = load16(from_[i] + Pieces::from_step(step));
  }
  __device__ void finish(int b) {
#pragma unroll
    for (int i = 0; i < kPieces; ++i)
      *reinterpret_cast<uint4*>(reinterpret_cast<Byte*>(&buffers_[b]) + to_[i]) = held_[i];
  }
#endif

 private:
  static constexpr int kPieces = kTileRows * Pieces::kParts / 256;
  Buffer* buffers_;
  const Byte* from_[kPieces];
  int to_[kPieces];
#if __CUDA_ARCH__ < 800
  uint4 held_[kPieces];
#endif
};

}  // namespace maestrale::device
