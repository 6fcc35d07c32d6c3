// SPDX-License-Identifier: Apache-2.0
#include "model/adapter_loader.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "model/adapted_rows.h"
#include "quant/finite.h"
#include "quant/quantize.h"

namespace maestrale {
namespace {

uint64_t aligned(uint64_t bytes) { return (bytes + 63) / 64 * 64; }
int64_t padded_rank(int64_t rank) { return (rank + kRankStep - 1) / kRankStep * kRankStep; }

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

LowRank& place_of(const ModelTensor& target, Adapter& adapter) {
  if (target.role == TensorRole::kOutput) return adapter.output;
  LayerAdapter& layer = adapter.layers[size_t(target.layer)];
  switch (target.role) {
    case TensorRole::kQ: return layer.wq;
    case TensorRole::kK: return layer.wk;
    case TensorRole::kV: return layer.wv;
    case TensorRole::kAttentionOutput: return layer.wo;
    case TensorRole::kGate: return layer.w_gate;
    case TensorRole::kUp: return layer.w_up;
    default: return layer.w_down;
  }
}

// Bytes that the adapter takes at most: where no matrix can be narrowed.
uint64_t most_bytes(const AdapterFile& file, const Backend& backend) {
  uint64_t bytes = 0;
  for (const AdapterDelta& delta : file.deltas) {
    const ModelTensor& target = delta.target;
    bytes += aligned(backend.matrix_bytes(QuantType::kF32, delta.rank(), target.cols));
    bytes += aligned(backend.matrix_bytes(QuantType::kF32, target.rows, padded_rank(delta.rank())));
    if (delta.magnitude) bytes += aligned(uint64_t(target.rows) * sizeof(float));
  }
  for (const AdapterReplacement& own : file.replacements) {
    const MatrixSource& rows = *own.rows;
    bytes += aligned(own.target.role == TensorRole::kOutput
                         ? backend.matrix_bytes(rows.type, rows.rows, rows.cols)
                         : backend.table_bytes(rows.type, rows.rows, rows.cols));
  }
  return bytes;
}

class Loader {
 public:
  Loader(const AdapterFile& file, float scale, Backend& backend, const OpenBase& open_base,
         const LoadCallbacks& callbacks)
      : file_(file), scale_(scale), open_base_(open_base), callbacks_(callbacks) {
    AdapterOps* ops = backend.adapters();
    if (ops == nullptr)
      throw Error(ErrorCode::kAdapter,
                  "the device " + std::string(backend.device()) + " runs no adapters yet; use device 'cpu'");
    adapter_.storage = ops->reserve_adapter(most_bytes(file, backend));
  }

  Adapter load(int32_t n_layers) {
    adapter_.layers.resize(size_t(n_layers));
    for (const AdapterDelta& delta : file_.deltas) add(delta);
    for (const AdapterReplacement& own : file_.replacements) add(own);
    return std::move(adapter_);
  }

 private:
  void add(const AdapterDelta& delta) {
    check_cancelled(callbacks_);
    const std::string& name = delta.target.name;
    const std::vector<float> a = read_finite(*delta.lora_a, "lora_a of '" + name + "'");
    const std::vector<float> b = read_finite(*delta.lora_b, "lora_b of '" + name + "'");
    LowRank& place = place_of(delta.target, adapter_);
    place.scaling = delta.scaling * scale_;
    place.lora_a = adapter_.storage->load_matrix(FloatMatrix(a, delta.rank(), delta.target.cols));
    place.lora_b =
        adapter_.storage->load_matrix(FloatMatrix(b, delta.target.rows, padded_rank(delta.rank())));
    if (delta.magnitude) place.factor = adapter_.storage->load_vector(factors(delta, a, b, place.scaling));
    adapter_.rank = std::max(adapter_.rank, delta.rank());
    adapter_.parameters += a.size() + b.size() + (delta.magnitude ? size_t(delta.target.rows) : 0);
  }

  void add(const AdapterReplacement& own) {
    const ReplacementSource rows(*own.rows, own.target.name, callbacks_);
    if (own.target.role == TensorRole::kOutput)
      adapter_.own_output = adapter_.storage->load_matrix(rows);
    else
      adapter_.token_embedding = adapter_.storage->load_table(rows);
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
  const OpenBase& open_base_;
  const LoadCallbacks& callbacks_;
  std::shared_ptr<const WeightStore> base_;
  Adapter adapter_;
};

}  // namespace

std::unique_ptr<const Adapter> load_adapter(const AdapterFile& file, float scale, const ModelConfig& config,
                                            Backend& backend, const OpenBase& open_base,
                                            const LoadCallbacks& callbacks) {
  try {
    return std::make_unique<const Adapter>(
        Loader(file, scale, backend, open_base, callbacks).load(config.n_layers));
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
