// SPDX-License-Identifier: Apache-2.0
#include "model/merged_weights.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/adapted_rows.h"
#include "model/hf_source.h"

namespace maestrale {
namespace {

class MergedSource final : public MatrixSource {
 public:
  MergedSource(std::unique_ptr<const MatrixSource> base, const MergedWeights::Delta& delta)
      : MatrixSource(QuantType::kF32, base->rows, base->cols), base_(std::move(base)), delta_(delta) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    AdaptedRows adapted(*base_, delta_.lora_a, delta_.lora_b, delta_.scaling);
    for (int64_t r = first_row; r < first_row + n_rows; ++r) {
      const std::span<float> row = adapted.read(r);
      if (!delta_.magnitude.empty()) bring_to(delta_.magnitude[size_t(r)], row);
      std::memcpy(out, row.data(), row.size_bytes());
      out += row.size_bytes();
    }
  }

 private:
  static void bring_to(float length, std::span<float> row) {
    const float factor = length / row_length(row);
    for (float& x : row) x *= factor;
  }

  const std::unique_ptr<const MatrixSource> base_;
  const MergedWeights::Delta& delta_;
};

// A source that belongs to somebody else.
class BorrowedSource final : public MatrixSource {
 public:
  explicit BorrowedSource(const MatrixSource& inner)
      : MatrixSource(inner.type, inner.rows, inner.cols), inner_(inner) {}
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    inner_.read_rows(first_row, n_rows, out);
  }

 private:
  const MatrixSource& inner_;
};

// Beside the weights an adapter's own embedding leaves the logits alone; in a tied model one matrix cannot be
// both.
void require_untied(const WeightStore& base, const ModelTensor& target) {
  if (target.role == TensorRole::kTokenEmbedding && base.tensors().back().role != TensorRole::kOutput)
    throw Error(ErrorCode::kAdapter,
                "the adapter has an embedding of its own, but the model computes its logits with the "
                "embedding, so the two cannot be merged");
}

void require(const WeightStore& base, const ModelTensor& target) {
  const auto is_target = [&](const ModelTensor& tensor) { return tensor.name == target.name; };
  if (std::none_of(base.tensors().begin(), base.tensors().end(), is_target))
    throw Error(ErrorCode::kAdapter, "the adapter changes '" + target.name +
                                         "', but the model computes its logits with the embedding");
}

}  // namespace

MergedWeights::MergedWeights(const WeightStore& base, const AdapterFile& adapter, float scale)
    : WeightStore(base.tensors()), base_(base) {
  try {
    for (const AdapterDelta& change : adapter.deltas) {
      const std::string& name = change.target.name;
      require(base, change.target);
      Delta& delta = deltas_[name];
      delta.lora_a = read_finite(*change.lora_a, "lora_a of '" + name + "'");
      delta.lora_b = read_finite(*change.lora_b, "lora_b of '" + name + "'");
      if (change.magnitude)
        delta.magnitude = read_finite(*change.magnitude, "the magnitude of '" + name + "'");
      delta.scaling = change.scaling * scale;
    }
    for (const AdapterReplacement& own : adapter.replacements) {
      require(base, own.target);
      require_untied(base, own.target);
      replacements_[own.target.name] = own.rows.get();
    }
  } catch (const Error& error) {
    throw about_adapter(adapter.path, error);
  }
}

QuantType MergedWeights::type(const ModelTensor& tensor) const {
  if (deltas_.count(tensor.name) != 0) return QuantType::kF32;
  const auto own = replacements_.find(tensor.name);
  return own != replacements_.end() ? own->second->type : base_.type(tensor);
}

std::unique_ptr<const MatrixSource> MergedWeights::open(const ModelTensor& tensor) const {
  if (const auto own = replacements_.find(tensor.name); own != replacements_.end())
    return std::make_unique<BorrowedSource>(*own->second);
  std::unique_ptr<const MatrixSource> source = base_.open(tensor);
  const auto delta = deltas_.find(tensor.name);
  if (delta == deltas_.end()) return source;
  return std::make_unique<MergedSource>(std::move(source), delta->second);
}

RetypedWeights::RetypedWeights(const WeightStore& weights, TypeOf type_of)
    : WeightStore(weights.tensors()), weights_(weights), type_of_(std::move(type_of)) {}

std::unique_ptr<const MatrixSource> RetypedWeights::open(const ModelTensor& tensor) const {
  std::unique_ptr<const MatrixSource> source = weights_.open(tensor);
  if (source->type == type(tensor)) return source;
  return std::make_unique<QuantizingSource>(std::move(source), type(tensor), tensor.name);
}

}  // namespace maestrale
