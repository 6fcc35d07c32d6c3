// SPDX-License-Identifier: Apache-2.0
// Loads weights in two passes: first all sizes, so that the backend can reserve its memory at once, then one
// tensor after the other, read in the backend's own pace.
#include "model/loader.h"

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "model/gguf_weights.h"
#include "quant/dequantize.h"

namespace maestrale {
namespace {

// Asks before each read whether to go on: one matrix may take seconds.
class CancellableSource final : public MatrixSource {
 public:
  CancellableSource(const MatrixSource& inner, const LoadCallbacks& callbacks)
      : MatrixSource(inner.type, inner.rows, inner.cols), inner_(inner), callbacks_(callbacks) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    check_cancelled(callbacks_);
    inner_.read_rows(first_row, n_rows, out);
  }

 private:
  const MatrixSource& inner_;
  const LoadCallbacks& callbacks_;
};

bool is_float(QuantType type) {
  return type == QuantType::kF32 || type == QuantType::kF16 || type == QuantType::kBF16;
}

// Where the tensor goes; a tied embedding goes to two places.
struct Target {
  Matrix* table = nullptr;
  Matrix* matrix = nullptr;
  Tensor* vector = nullptr;
};

Target target_of(const ModelTensor& tensor, Weights& weights, bool tied) {
  if (tensor.role == TensorRole::kTokenEmbedding)
    return {.table = &weights.token_embedding, .matrix = tied ? &weights.output : nullptr};
  if (tensor.role == TensorRole::kFinalNorm) return {.vector = &weights.final_norm};
  if (tensor.role == TensorRole::kOutput) return {.matrix = &weights.output};
  LayerWeights& layer = weights.layers[size_t(tensor.layer)];
  switch (tensor.role) {
    case TensorRole::kAttentionNorm: return {.vector = &layer.attention_norm};
    case TensorRole::kQ: return {.matrix = &layer.wq};
    case TensorRole::kK: return {.matrix = &layer.wk};
    case TensorRole::kV: return {.matrix = &layer.wv};
    case TensorRole::kAttentionOutput: return {.matrix = &layer.wo};
    case TensorRole::kFfnNorm: return {.vector = &layer.ffn_norm};
    case TensorRole::kGate: return {.matrix = &layer.w_gate};
    case TensorRole::kUp: return {.matrix = &layer.w_up};
    default: return {.matrix = &layer.w_down};
  }
}

void check_norm_types(const WeightStore& weights) {
  for (const ModelTensor& tensor : weights.tensors())
    if (const QuantType type = weights.type(tensor); tensor.is_norm() && !is_float(type))
      throw Error(ErrorCode::kModelUnsupported, "tensor '" + tensor.name + "' has type " +
                                                    std::string(quant_traits(type).name) +
                                                    ", but norm weights must be F32, F16 or BF16");
}

}  // namespace

void check_cancelled(const LoadCallbacks& callbacks) {
  if (callbacks.cancelled != nullptr && callbacks.cancelled->load(std::memory_order_relaxed))
    throw Error(ErrorCode::kAborted, "loading the model was aborted");
}

std::vector<float> read_norm(const WeightStore& weights, const ModelTensor& norm) {
  const std::unique_ptr<const MatrixSource> source = weights.open(norm);
  std::vector<std::byte> stored(row_bytes(source->type, uint64_t(norm.cols)));
  source->read_rows(0, 1, stored.data());
  std::vector<float> values(size_t(norm.cols));
  dequantize_row(source->type, stored.data(), norm.cols, values.data());
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw Error(ErrorCode::kModelFormat,
                  "element " + std::to_string(i) + " of tensor '" + norm.name + "' is not a finite number");
  return values;
}

std::unique_ptr<Model> load_model(const WeightStore& store, ModelConfig config,
                                  std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks) {
  std::vector<Stage> stages;
  stages.push_back({std::move(backend), 0, config.n_layers});
  return load_model(store, std::move(config), std::move(stages), callbacks);
}

std::unique_ptr<Model> load_model(const WeightStore& store, ModelConfig config, std::vector<Stage> stages,
                                  const LoadCallbacks& callbacks) {
  check_norm_types(store);
  check_cancelled(callbacks);
  Weights weights;
  weights.layers.resize(size_t(config.n_layers));
  const bool tied = store.tensors().back().role != TensorRole::kOutput;

  // The stage that holds a tensor as a matrix or vector; tables belong to the first one.
  const auto stage_of = [&](const ModelTensor& tensor) {
    size_t stage = 0;
    if (tensor.role == TensorRole::kTokenEmbedding || tensor.role == TensorRole::kFinalNorm ||
        tensor.role == TensorRole::kOutput)
      return stages.size() - 1;
    while (tensor.layer >= stages[stage].end_layer) ++stage;
    return stage;
  };
  uint64_t loaded = 0, total = 0;
  std::vector<uint64_t> reserved(stages.size());
  for (const ModelTensor& tensor : store.tensors()) {
    const QuantType type = store.type(tensor);
    const Target target = target_of(tensor, weights, tied);
    total += uint64_t(tensor.rows) * row_bytes(type, uint64_t(tensor.cols));
    const size_t stage = stage_of(tensor);
    if (target.table != nullptr)
      reserved[0] += stages[0].backend->table_bytes(type, tensor.rows, tensor.cols);
    if (target.matrix != nullptr)
      reserved[stage] += stages[stage].backend->matrix_bytes(type, tensor.rows, tensor.cols);
  }
  for (size_t i = 0; i < stages.size(); ++i) stages[i].backend->reserve_weights(reserved[i]);

  const auto report = [&] {
    if (callbacks.on_progress) callbacks.on_progress(loaded, total);
  };
  report();
  for (const ModelTensor& tensor : store.tensors()) {
    check_cancelled(callbacks);
    const Target target = target_of(tensor, weights, tied);
    Backend& backend = *stages[stage_of(tensor)].backend;
    if (target.vector != nullptr) {
      *target.vector = backend.load_vector(read_norm(store, tensor));
    } else {
      const std::unique_ptr<const MatrixSource> stored = store.open(tensor);
      const CancellableSource source(*stored, callbacks);
      if (target.table != nullptr) *target.table = stages[0].backend->load_table(source);
      if (target.matrix != nullptr) *target.matrix = backend.load_matrix(source);
    }
    loaded += uint64_t(tensor.rows) * row_bytes(store.type(tensor), uint64_t(tensor.cols));
    report();
  }
  return std::make_unique<Model>(std::move(config), std::move(stages), std::move(weights));
}

std::unique_ptr<Model> load_gguf_model(const MappedFile& file, const GgufFile& header, ModelConfig config,
                                       std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks) {
  const GgufWeights weights(file, header, config);
  return load_model(weights, std::move(config), std::move(backend), callbacks);
}

}  // namespace maestrale
