// SPDX-License-Identifier: Apache-2.0
#include "model/adapter_loader.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/integer.h"
#include "model/adapted_rows.h"
#include "quant/finite.h"
#include "quant/quantize.h"

namespace maestrale {
namespace {

uint64_t aligned(uint64_t bytes) { return round_up(bytes, 64); }
int64_t padded_rank(int64_t rank) { return int64_t(round_up(uint64_t(rank), kRankStep)); }

// The narrowest type that holds all values exactly.
QuantType exact_type(const std::vector<float>& values) {
  const auto all = [&](auto narrow) {
    return std::all_of(values.begin(), values.end(), [&](float x) { return narrow(x) == x; });
  };
  if (all([](float x) { return f16_to_f32(f32_to_f16(x)); })) return QuantType::kF16;
  if (all([](float x) { return bf16_to_f32(f32_to_bf16(x)); })) return QuantType::kBF16;
  return QuantType::kF32;
}

// Floats in memory as a matrix of their exact type, with zero columns behind the last one.
class FloatMatrix final : public MatrixSource {
 public:
  FloatMatrix(const std::vector<float>& values, int64_t n_rows, int64_t n_cols)
      : MatrixSource(exact_type(values), n_rows, n_cols), values_(values) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    const int64_t given = int64_t(values_.size()) / rows;
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = first_row; r < first_row + n_rows; ++r, out += row_bytes(type, uint64_t(cols))) {
      std::copy_n(values_.begin() + r * given, given, row.begin());
      quantize_row(type, row.data(), cols, out);
    }
  }

 private:
  const std::vector<float>& values_;
};

// A replacement on its way into the backend, a few rows at a time: every value must be finite.
class ReplacementSource final : public MatrixSource {
 public:
  ReplacementSource(const MatrixSource& inner, const std::string& name, const LoadCallbacks& callbacks)
      : MatrixSource(inner.type, inner.rows, inner.cols), inner_(inner), name_(name), callbacks_(callbacks) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    check_cancelled(callbacks_);
    inner_.read_rows(first_row, n_rows, out);
    for (int64_t r = first_row; r < first_row + n_rows; ++r, out += row_bytes(type, uint64_t(cols)))
      if (!all_finite(type, out, cols))
        throw Error(ErrorCode::kAdapter, "row " + std::to_string(r) + " of the adapter's own '" + name_ +
                                             "' holds a value that is not a finite number");
  }

 private:
  const MatrixSource& inner_;
  const std::string& name_;
  const LoadCallbacks& callbacks_;
};

LayerMatrix matrix_of(TensorRole role) {
  switch (role) {
    case TensorRole::kQ: return LayerMatrix::kQ;
    case TensorRole::kK: return LayerMatrix::kK;
    case TensorRole::kV: return LayerMatrix::kV;
    case TensorRole::kAttentionOutput: return LayerMatrix::kO;
    case TensorRole::kGate: return LayerMatrix::kGate;
    case TensorRole::kUp: return LayerMatrix::kUp;
    default: return LayerMatrix::kDown;
  }
}

size_t number_of(const ModelTensor& target, const Model& model) {
  if (target.role == TensorRole::kOutput) return output_number(size_t(model.config().n_layers));
  return product_number(size_t(target.layer), matrix_of(target.role));
}

// The stage that has the base model's own matrix.
size_t stage_of(const ModelTensor& target, const Model& model) {
  if (target.role == TensorRole::kTokenEmbedding) return 0;
  size_t stage = model.stages().size() - 1;
  if (target.role != TensorRole::kOutput)
    while (target.layer < model.stages()[stage].first_layer) --stage;
  return stage;
}

// Bytes that the adapter takes at most of each stage: where no matrix can be narrowed.
std::vector<uint64_t> most_bytes(const AdapterFile& file, const Model& model) {
  std::vector<uint64_t> bytes(model.stages().size());
  for (const AdapterDelta& delta : file.deltas) {
    const ModelTensor& target = delta.target;
    const size_t stage = stage_of(target, model);
    const Backend& backend = *model.stages()[stage].backend;
    bytes[stage] += aligned(backend.matrix_bytes(QuantType::kF32, delta.rank(), target.cols));
    bytes[stage] += aligned(backend.matrix_bytes(QuantType::kF32, target.rows, padded_rank(delta.rank())));
    if (delta.magnitude) bytes[stage] += aligned(uint64_t(target.rows) * sizeof(float));
  }
  for (const AdapterReplacement& own : file.replacements) {
    const MatrixSource& rows = *own.rows;
    const size_t stage = stage_of(own.target, model);
    const Backend& backend = *model.stages()[stage].backend;
    bytes[stage] += aligned(own.target.role == TensorRole::kOutput
                                ? backend.matrix_bytes(rows.type, rows.rows, rows.cols)
                                : backend.table_bytes(rows.type, rows.rows, rows.cols));
  }
  return bytes;
}

class Loader {
 public:
  Loader(const AdapterFile& file, float scale, const Model& model, const OpenBase& open_base,
         const LoadCallbacks& callbacks)
      : file_(file),
        scale_(scale),
        model_(model),
        open_base_(open_base),
        callbacks_(callbacks),
        products_(model.stages().size(),
                  std::vector<LowRank>(output_number(size_t(model.config().n_layers)) + 1)) {
    const std::vector<uint64_t> bytes = most_bytes(file, model);
    for (size_t stage = 0; stage < bytes.size(); ++stage)
      adapter_.storages.push_back(model.stages()[stage].backend->adapters().reserve_adapter(bytes[stage]));
  }

  Adapter load() {
    for (const AdapterDelta& delta : file_.deltas) add(delta);
    for (const AdapterReplacement& own : file_.replacements) add(own);
    for (size_t stage = 0; stage < products_.size(); ++stage)
      adapter_.storages[stage]->set_products(std::move(products_[stage]));
    return std::move(adapter_);
  }

 private:
  void add(const AdapterDelta& delta) {
    check_cancelled(callbacks_);
    const std::string& name = delta.target.name;
    const std::vector<float> a = read_finite(*delta.lora_a, "lora_a of '" + name + "'");
    const std::vector<float> b = read_finite(*delta.lora_b, "lora_b of '" + name + "'");
    const size_t stage = stage_of(delta.target, model_);
    AdapterStorage& storage = *adapter_.storages[stage];
    LowRank& product = products_[stage][number_of(delta.target, model_)];
    product.scaling = delta.scaling * scale_;
    product.lora_a = storage.load_lora_a(FloatMatrix(a, delta.rank(), delta.target.cols));
    product.lora_b = storage.load_lora_b(FloatMatrix(b, delta.target.rows, padded_rank(delta.rank())));
    if (delta.magnitude) product.factor = storage.load_vector(factors(delta, a, b, product.scaling));
    adapter_.rank = std::max(adapter_.rank, delta.rank());
    adapter_.parameters += a.size() + b.size() + (delta.magnitude ? size_t(delta.target.rows) : 0);
  }

  void add(const AdapterReplacement& own) {
    const ReplacementSource rows(*own.rows, own.target.name, callbacks_);
    AdapterStorage& storage = *adapter_.storages[stage_of(own.target, model_)];
    if (own.target.role == TensorRole::kOutput)
      adapter_.own_output = storage.load_matrix(rows);
    else
      adapter_.token_embedding = storage.load_table(rows);
    adapter_.parameters += uint64_t(rows.rows) * uint64_t(rows.cols);
  }

  // magnitude / length of every row
  std::vector<float> factors(const AdapterDelta& delta, const std::vector<float>& a,
                             const std::vector<float>& b, float scaling) {
    if (!base_) base_ = open_base_();
    std::vector<float> factors =
        read_finite(*delta.magnitude, "the magnitude of '" + delta.target.name + "'");
    const std::vector<float> lengths =
        adapted_row_lengths(*base_->open(delta.target), a, b, scaling, callbacks_);
    for (size_t row = 0; row < factors.size(); ++row) {
      factors[row] /= lengths[row];
      if (!std::isfinite(factors[row]))
        throw Error(ErrorCode::kAdapter, "row " + std::to_string(row) + " of '" + delta.target.name +
                                             "' has no length to bring to the adapter's magnitude");
    }
    return factors;
  }

  const AdapterFile& file_;
  const float scale_;
  const Model& model_;
  const OpenBase& open_base_;
  const LoadCallbacks& callbacks_;
  std::vector<std::vector<LowRank>> products_;  // of each stage, by their numbers
  std::shared_ptr<const WeightStore> base_;
  Adapter adapter_;
};

}  // namespace

std::unique_ptr<const Adapter> load_adapter(const AdapterFile& file, float scale, const Model& model,
                                            const OpenBase& open_base, const LoadCallbacks& callbacks) {
  try {
    return std::make_unique<const Adapter>(Loader(file, scale, model, open_base, callbacks).load());
  } catch (const Error& error) {
    throw about_adapter(file.path, error);
  }
}

std::vector<float> adapted_row_lengths(const MatrixSource& base, const std::vector<float>& lora_a,
                                       const std::vector<float>& lora_b, float scaling,
                                       const LoadCallbacks& callbacks) {
  AdaptedRows adapted(base, lora_a, lora_b, scaling);
  std::vector<float> lengths;
  for (int64_t r = 0; r < base.rows; ++r) {
    if (r % 256 == 0) check_cancelled(callbacks);
    lengths.push_back(row_length(adapted.read(r)));
  }
  return lengths;
}

}  // namespace maestrale
