// SPDX-License-Identifier: Apache-2.0
#include "cuda/adapter_memory.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr const char* kPurpose = "the adapter";

GlobalAddress address(const void* p) { return GlobalAddress(reinterpret_cast<uintptr_t>(p)); }

FactorType type_of(const Matrix& factor) {
  switch (factor.type) {
    case QuantType::kF32: return FactorType::kF32;
    case QuantType::kF16: return FactorType::kF16;
    case QuantType::kBF16: return FactorType::kBF16;
    default: throw Error(ErrorCode::kInternal, "a factor of an adapter is no matrix of floats");
  }
}

}  // namespace

AdapterMemory::AdapterMemory(const Device& device, const Kernels& kernels, int64_t max_rows, uint64_t bytes)
    : device_(device),
      max_rows_(max_rows),
      launches_(std::in_place, device),
      weights_(device, kernels, *launches_) {
  weights_.reserve(bytes, kPurpose);
}

// What steps have left behind may still read it. A device that is lost says so at its next operation.
AdapterMemory::~AdapterMemory() {
  if (!used_) return;
  try {
    device_.make_current();
    device_.synchronize();
  } catch (const Error&) {
  }
}

void AdapterMemory::set_products(std::vector<LowRank> products) {
  std::vector<Delta> deltas;
  for (const LowRank& product : products) {
    if (!product) {
      deltas.push_back({});
      continue;
    }
    deltas.push_back({address(product.lora_a.data), address(product.lora_b.data),
                      address(product.factor.data), product.scaling, int(product.lora_a.rows),
                      type_of(product.lora_a), type_of(product.lora_b), 0});
    down_rank_ = std::max(down_rank_, int(product.lora_b.cols));
  }
  const std::span<const std::byte> bytes = std::as_bytes(std::span(deltas));
  deltas_ = DeviceBuffer(device_, bytes.size(), kPurpose);
  weights_.copy(bytes, deltas_.address());
  weights_.finish();
  launches_.reset();  // a server may hold hundreds of adapters
  down_ = DeviceBuffer(device_, uint64_t(max_rows_ * 3 * down_rank_) * sizeof(float), kPurpose);
  AdapterStorage::set_products(std::move(products));
}

Segment AdapterMemory::segment(RowRange rows) const {
  used_ = true;
  return {deltas_.address(), down_.address(), down_rank_, rows.first, rows.count, 0};
}

}  // namespace maestrale::cuda
