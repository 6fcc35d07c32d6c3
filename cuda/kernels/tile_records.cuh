// SPDX-License-Identifier: Apache-2.0
// Activations in eight bits as matmul_tile streams them through shared memory, a record of 64 rows at a time.
//
// Codes: 256 bytes a row; the 16-byte pieces of odd rows change places by fours, so that eight lanes with two
// rows of a fragment use all banks. Tails: each part by itself, 16 bytes a row.
#pragma once

#include "dot.cuh"
#include "tile_copy.cuh"

namespace maestrale::device {

constexpr int kPartBytes = 16 * kTileRows + 16;  // the 16 keep writers of one row apart
struct __align__(16) TileBuffer {
  Byte codes[kTileRows * kUnitCols];
  Byte tails[4 * kPartBytes];
};

struct RecordPieces {
  using Buffer = TileBuffer;
  static constexpr int kParts = kRecordBytes / 16;
  static __device__ int from(int part) { return 16 * part; }
  static __device__ int from_step(int step) { return step * kRecordBytes; }
  static __device__ int to(int row, int part) {
    return part < 16 ? row * kUnitCols + 16 * (part ^ 4 * (row & 1))
                     : int(sizeof TileBuffer::codes) + (part - 16) * kPartBytes + 16 * row;
  }
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

// See matmul_tile.
template <class Tiled>
class RecordStream {
  static constexpr int kGroups = kTileRows / 8, kUnitRecords = kRecords<Tiled>;

 public:
  struct Shared {
    TileBuffer buffers[2];
  };
  __device__ RecordStream(Shared& shared, const MatmulArgs& args, int first_row)
      : buffers_(shared.buffers),
        units_(args.units),
        copy_(buffers_, args.records, first_row, args.rows, args.units * kUnitRecords * kRecordBytes) {}
  __device__ void begin() {
    if (kUnitRecords == 1) copy_.start(0, 0);
  }
  __device__ void multiply(const Byte* unit, int u, int groups, int lane, float (&f)[1][kGroups][4]) {
    int b = u & 1;
    if constexpr (kUnitRecords == 1) {
      copy_.finish(b);
      __syncthreads();
      if (u + 1 < units_) copy_.start(b ^ 1, u + 1);
    } else {  // a unit takes both buffers
      __syncthreads();
      for (b = 0; b < 2; ++b) {
        copy_.start(b, 2 * u + b);
        copy_.finish(b);
      }
      b = 0;
      __syncthreads();
    }
    const SharedRows rows = {buffers_[b], buffers_[b + kUnitRecords - 1], lane};
    units_times_groups<Tiled>({unit}, rows, groups, lane, f);
  }

 private:
  TileBuffer* buffers_;
  int units_;
  TileCopy<RecordPieces> copy_;
};

}  // namespace maestrale::device
