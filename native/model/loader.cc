// SPDX-License-Identifier: Apache-2.0
// Loads the weights of a GGUF file. First a plan: which tensor becomes which weight, with every name,
// shape and type checked. Then the work: one tensor after the other, read in the backend's own pace.
#include "model/loader.h"

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/half.h"

namespace maestrale {
namespace {

// One tensor of the file and the weights it fills. A tied embedding fills two.
struct Step {
  const GgufTensor* tensor;
  Matrix* table = nullptr;
  Matrix* matrix = nullptr;
  Tensor* vector = nullptr;
};

void check_cancelled(const std::atomic<bool>* cancelled) {
  if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed))
    throw Error(ErrorCode::kAborted, "loading the model was aborted");
}

class FileMatrix final : public MatrixSource {
 public:
  FileMatrix(const MappedFile& file, const GgufTensor& tensor, const std::atomic<bool>* cancelled)
      : MatrixSource(tensor.type, tensor.rows, tensor.cols),
        file_(file),
        tensor_(tensor),
        cancelled_(cancelled) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    check_cancelled(cancelled_);
    if (first_row < 0 || n_rows < 0 || n_rows > rows - first_row)
      throw Error(ErrorCode::kInternal, "rows " + std::to_string(first_row) + " to " +
                                            std::to_string(first_row + n_rows) + " of '" +
                                            std::string(tensor_.name) + "' were asked for");
    const uint64_t bytes = row_bytes(type, uint64_t(cols));
    file_.read(tensor_.offset + uint64_t(first_row) * bytes, {out, size_t(uint64_t(n_rows) * bytes)});
  }

 private:
  const MappedFile& file_;
  const GgufTensor& tensor_;
  const std::atomic<bool>* cancelled_;
};

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t dim : shape) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

// Chooses the tensors of a model; remembers the names, so that what is left over can be reported.
class Plan {
 public:
  Plan(const GgufFile& header, const ModelConfig& config) : header_(header), config_(config) {}

  std::vector<Step> steps;

  void add_all(Weights& weights) {
    const int64_t dim = config_.dim, hidden = config_.hidden_dim, vocab = config_.vocab_size;
    const int64_t q = int64_t{config_.n_heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.n_kv_heads} * config_.head_dim;
    steps.push_back({.tensor = require("token_embd.weight", dim, vocab), .table = &weights.token_embedding});
    weights.layers.resize(size_t(config_.n_layers));  // never again: steps point into it
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      LayerWeights& layer = weights.layers[i];
      const std::string block = "blk." + std::to_string(i) + ".";
      add_vector(block + "attn_norm.weight", layer.attention_norm);
      add_matrix(block + "attn_q.weight", dim, q, layer.wq);
      add_matrix(block + "attn_k.weight", dim, kv, layer.wk);
      add_matrix(block + "attn_v.weight", dim, kv, layer.wv);
      add_matrix(block + "attn_output.weight", q, dim, layer.wo);
      add_vector(block + "ffn_norm.weight", layer.ffn_norm);
      add_matrix(block + "ffn_gate.weight", dim, hidden, layer.w_gate);
      add_matrix(block + "ffn_up.weight", dim, hidden, layer.w_up);
      add_matrix(block + "ffn_down.weight", hidden, dim, layer.w_down);
    }
    add_vector("output_norm.weight", weights.final_norm);
    if (header_.find_tensor("output.weight") != nullptr)
      add_matrix("output.weight", dim, vocab, weights.output);
    else
      steps.front().matrix = &weights.output;  // tied to the embedding
  }

  // Anything left in the file would change what the model computes, or be something else entirely.
  void check_nothing_left() const {
    for (const GgufTensor& tensor : header_.tensors()) {
      if (used_.count(tensor.name) != 0) continue;
      const std::string name = "tensor '" + std::string(tensor.name) + "'";
      const char* reason = ", which is no part of a Mistral model";
      if (tensor.name == "rope_freqs.weight") reason = ", a RoPE scaling that this engine does not run";
      if (tensor.name.ends_with(".bias")) reason = ", a bias that this engine does not run: Mistral has none";
      throw Error(ErrorCode::kModelUnsupported, "the file has a " + name + reason);
    }
  }

 private:
  void add_matrix(const std::string& name, int64_t cols, int64_t rows, Matrix& target) {
    steps.push_back({.tensor = require(name, cols, rows), .matrix = &target});
  }

  void add_vector(const std::string& name, Tensor& target) {
    const GgufTensor* tensor = require(name, config_.dim, 1);
    if (tensor->type != QuantType::kF32 && tensor->type != QuantType::kF16 &&
        tensor->type != QuantType::kBF16)
      throw Error(ErrorCode::kModelUnsupported, "tensor '" + name + "' has type " +
                                                    std::string(quant_traits(tensor->type).name) +
                                                    ", but norm weights must be F32, F16 or BF16");
    steps.push_back({.tensor = tensor, .vector = &target});
  }

  const GgufTensor* require(const std::string& name, int64_t cols, int64_t rows) {
    const GgufTensor* tensor = header_.find_tensor(name);
    if (tensor == nullptr)
      throw Error(ErrorCode::kModelFormat, "tensor '" + name + "' is missing from the file");
    // Writers may append dimensions of 1, but [1, n] is not [n].
    const bool matches = tensor->cols == cols && tensor->rows == rows &&
                         (rows == 1 || (tensor->shape.size() > 1 && tensor->shape[1] == uint64_t(rows)));
    if (!matches)
      throw Error(ErrorCode::kModelFormat, "tensor '" + name + "' has shape " + shape_text(tensor->shape) +
                                               ", but the metadata demands " + std::to_string(cols) +
                                               (rows == 1 ? "" : " x " + std::to_string(rows)));
    used_.insert(tensor->name);
    return tensor;
  }

  const GgufFile& header_;
  const ModelConfig& config_;
  std::set<std::string_view> used_;
};

// A norm weight as float32, whatever it was stored as.
std::vector<float> read_vector(const MappedFile& file, const GgufTensor& tensor) {
  std::vector<float> values(size_t(tensor.cols));
  if (tensor.type == QuantType::kF32) {
    file.read(tensor.offset, std::as_writable_bytes(std::span(values)));
  } else {
    std::vector<uint16_t> halves(values.size());
    file.read(tensor.offset, std::as_writable_bytes(std::span(halves)));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = tensor.type == QuantType::kF16 ? f16_to_f32(halves[i]) : bf16_to_f32(halves[i]);
  }
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw Error(ErrorCode::kModelFormat, "element " + std::to_string(i) + " of tensor '" +
                                               std::string(tensor.name) + "' is not a finite number");
  return values;
}

void reserve(const std::vector<Step>& steps, Backend& backend) {
  uint64_t bytes = 0;
  for (const Step& step : steps) {
    const GgufTensor& tensor = *step.tensor;
    if (step.table != nullptr) bytes += backend.table_bytes(tensor.type, tensor.rows, tensor.cols);
    if (step.matrix != nullptr) bytes += backend.matrix_bytes(tensor.type, tensor.rows, tensor.cols);
  }
  backend.reserve_weights(bytes);
}

}  // namespace

std::unique_ptr<Model> load_gguf_model(const MappedFile& file, const GgufFile& header, ModelConfig config,
                                       std::unique_ptr<Backend> backend, const LoadCallbacks& callbacks) {
  if (header.tensors().empty())
    throw Error(ErrorCode::kModelFormat,
                "'" + file.path() + "' holds a vocabulary but no weights, so no model can be loaded from it");
  Weights weights;
  Plan plan(header, config);
  plan.add_all(weights);
  plan.check_nothing_left();

  uint64_t loaded = 0, total = 0;
  for (const Step& step : plan.steps) total += step.tensor->bytes;
  const auto report = [&] {
    if (callbacks.on_progress) callbacks.on_progress(loaded, total);
  };
  check_cancelled(callbacks.cancelled);
  reserve(plan.steps, *backend);
  report();
  for (const Step& step : plan.steps) {
    check_cancelled(callbacks.cancelled);
    const FileMatrix source(file, *step.tensor, callbacks.cancelled);
    if (step.table != nullptr) *step.table = backend->load_table(source);
    if (step.matrix != nullptr) *step.matrix = backend->load_matrix(source);
    if (step.vector != nullptr) *step.vector = backend->load_vector(read_vector(file, *step.tensor));
    loaded += step.tensor->bytes;
    report();
  }
  return std::make_unique<Model>(std::move(config), std::move(backend), std::move(weights));
}

}  // namespace maestrale
