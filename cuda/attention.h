// SPDX-License-Identifier: Apache-2.0
// Plans attention for a batch and launches it: which queries share a block, and whether the keys of a query
// are divided among blocks. Neither changes a bit of the result, see cuda/kernels/attention.cuh.
#pragma once

#include <vector>

#include "cuda/kernels.h"
#include "cuda/kv_cache.h"

namespace maestrale::cuda {

class Attention {
 public:
  Attention(const Device& device, const Kernels& kernels)
      : device_(device), kernels_(kernels), plan_(device, "batch") {}

  // Allocates what split attention needs and loads the kernels.
  void configure(const KvConfig& config);
  uint64_t scratch_bytes(const KvConfig& config) const {  // that is
    return partial_bytes(config) + arrival_bytes(config);
  }
  // The batch that run() works on, until the next call.
  void begin(const Batch& batch) { batch_ = &batch, group_ = 0; }
  // out = attention of the rotated q, (rows, heads * head_dim), over a layer of the cache.
  void run(const KvCache& cache, int32_t layer, DevicePointer q, DevicePointer out, int32_t heads);
  void landed() { plan_.landed(); }

 private:
  // Tiles that one kernel takes, of `matrix_rows` rows at most.
  struct Part {
    std::vector<QueryTile> tiles;
    int64_t chunks = 1;     // most that a tile sees
    int32_t most_rows = 0;  // of a tile's queries
    DevicePointer at = 0;
  };
  uint64_t partial_bytes(const KvConfig& config) const;
  uint64_t arrival_bytes(const KvConfig& config) const;
  int64_t most_tiles(const KvConfig& config) const;  // of a split
  void plan(const KvConfig& config, int32_t group);
  void add_tiles(const KvConfig& config, const BatchSequence& sequence, int32_t table, int32_t group);
  void launch(const Part& part, int width, const KvCache& cache, int32_t layer, DevicePointer q,
              DevicePointer out) const;

  const Device& device_;
  const Kernels& kernels_;
  const Batch* batch_ = nullptr;
  int32_t group_ = 0;  // query heads of a KV head that parts_ are planned for; 0: not planned
  Part parts_[2];      // blocks of 16 and of 64 matrix rows
  DevicePointer pages_ = 0;
  Upload plan_;
  DeviceBuffer partials_, arrivals_;  // of split attention, see cuda/kernels/split_keys.cuh
};

}  // namespace maestrale::cuda
