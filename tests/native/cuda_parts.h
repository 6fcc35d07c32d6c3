// SPDX-License-Identifier: Apache-2.0
// The parts of the CUDA back end without a model around them, and stored rows to multiply with.
#pragma once

#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "cuda/products.h"
#include "cuda/weight_memory.h"
#include "quant/blocks.h"
#include "simulated_gpu.h"

namespace maestrale::test {

using namespace cuda;
using Bytes = std::vector<uint8_t>;

class StoredRows final : public MatrixSource {
 public:
  StoredRows(QuantType quant_type, int64_t n_rows, int64_t n_cols, const Bytes& bytes)
      : MatrixSource(quant_type, n_rows, n_cols), bytes_(bytes) {}
  void read_rows(int64_t first, int64_t n, std::byte* out) const override {
    const uint64_t row = row_bytes(type, uint64_t(cols));
    std::memcpy(out, bytes_.data() + uint64_t(first) * row, uint64_t(n) * row);
  }

 private:
  const Bytes& bytes_;
};

struct Gpu {
  Device device{0};
  KernelModule module{device};
  Kernels kernels{module};
  WeightMemory weights{device, kernels, device.launches()};
  Products products{device, kernels};
  std::vector<DeviceBuffer> buffers;

  Tensor upload(const std::vector<float>& values, int64_t cols) {
    buffers.emplace_back(device, values.size() * 4, "a test");
    MAESTRALE_CU(device, cuMemcpyHtoDAsync_v2, buffers.back().address(), values.data(), values.size() * 4,
                 device.stream());
    device.synchronize();
    return {reinterpret_cast<float*>(uintptr_t(buffers.back().address())), cols};
  }
  template <class T>
  std::vector<T> download(const void* from, size_t n) {
    std::vector<T> values(n);
    MAESTRALE_CU(device, cuMemcpyDtoHAsync_v2, values.data(), DevicePointer(uintptr_t(from)), n * sizeof(T),
                 device.stream());
    device.synchronize();
    return values;
  }
};

// Stored rows of random codes and modest scales.
inline Bytes random_rows(QuantType type, int64_t n_rows, int64_t cols, std::mt19937& random) {
  Bytes rows(size_t(n_rows) * row_bytes(type, uint64_t(cols)));
  for (uint8_t& b : rows) b = uint8_t(random());
  const auto scale = [&] { return f32_to_f16(float(int(random() % 2001) - 1000) * 1e-5f); };
  visit_block(type, [&]<class Block>() {
    for (size_t at = 0; at < rows.size(); at += sizeof(Block)) {
      Block block;
      std::memcpy(&block, rows.data() + at, sizeof block);
      if constexpr (requires { block.d; }) block.d = scale();  // all that run here
      if constexpr (requires { block.m; }) block.m = scale();
      if constexpr (requires { block.absmax; }) block.absmax = float(random() % 1000) * 1e-3f;
      if constexpr (requires { block.dmin; }) block.dmin = scale();
      std::memcpy(rows.data() + at, &block, sizeof block);
    }
  });
  return rows;
}

inline std::vector<float> random_floats(size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

template <class Body>
void for_quantised_types(Body body) {
  for (const QuantTraits& traits : kQuantTraits)
    if (is_quantised(traits.type)) body(traits);
}

}  // namespace maestrale::test
