// SPDX-License-Identifier: Apache-2.0
#include "model/write_gguf.h"

#include <utility>
#include <vector>

namespace maestrale {
namespace {

std::vector<GgufTensorPlan> plan(const WeightStore& weights) {
  std::vector<GgufTensorPlan> tensors;
  for (const ModelTensor& tensor : weights.tensors()) {
    std::vector<uint64_t> shape{uint64_t(tensor.cols)};
    if (!tensor.is_norm()) shape.push_back(uint64_t(tensor.rows));
    tensors.push_back({tensor.name, weights.type(tensor), std::move(shape)});
  }
  return tensors;
}

}  // namespace

WrittenModel write_gguf(const std::string& path, const GgufMetadata& metadata, const WeightStore& weights,
                        const WeightStore& original, int32_t threads, const LoadCallbacks& callbacks) {
  GgufWriter writer(path, metadata, plan(weights), [&] { check_cancelled(callbacks); });
  WrittenModel written = copy_rows(weights, original, threads, callbacks,
                                   [&](std::span<const std::byte> rows) { writer.write(rows); });
  written.bytes = writer.commit();
  return written;
}

}  // namespace maestrale
