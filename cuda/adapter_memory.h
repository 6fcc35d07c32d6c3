// SPDX-License-Identifier: Apache-2.0
// One LoRA adapter on the device: its matrices, what kernels look up of it, and room for what they compute in
// between. It is filled in a stream of its own, while the model's steps go on in theirs; once it is filled
// there is no such stream any more.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backend/adapter_ops.h"
#include "cuda/device.h"
#include "cuda/low_rank_args.h"
#include "cuda/weight_memory.h"

namespace maestrale::cuda {

class AdapterMemory final : public AdapterStorage {
 public:
  // Room for `bytes`, and for batches of up to `max_rows` rows.
  AdapterMemory(const Device& device, const Kernels& kernels, int64_t max_rows, uint64_t bytes);
  ~AdapterMemory() override;

  Matrix load_lora_a(const MatrixSource& source) override { return weights_.load_table(source); }
  Matrix load_lora_b(const MatrixSource& source) override { return weights_.load_pieces(source); }
  Matrix load_matrix(const MatrixSource& source) override { return weights_.load_matrix(source); }
  Matrix load_table(const MatrixSource& source) override { return weights_.load_table(source); }
  Tensor load_vector(std::span<const float> values) override { return weights_.load_vector(values); }
  void set_products(std::vector<LowRank> products) override;
  uint64_t bytes() const override { return weights_.bytes() + deltas_.bytes() + down_.bytes(); }

  // These rows of a batch as the kernels see them. From then on the device may read the adapter.
  Segment segment(RowRange rows) const;

 private:
  const Device& device_;
  const int64_t max_rows_;
  mutable bool used_ = false;
  std::optional<Launches> launches_;  // until set_products()
  WeightMemory weights_;
  DeviceBuffer deltas_;  // Delta of each product
  DeviceBuffer down_;    // see Segment
  int down_rank_ = 0;
};

}  // namespace maestrale::cuda
