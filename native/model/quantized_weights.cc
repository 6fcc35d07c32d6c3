// SPDX-License-Identifier: Apache-2.0
#include "model/quantized_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/hf_source.h"
#include "quant/dequantize.h"
#include "quant/nf4.h"

namespace maestrale {
namespace {

// The scales of all blocks of 64 weights of a matrix, rounded to 8 bits in groups of 256, in the order of the
// rows in a Hugging Face checkpoint, which bitsandbytes sees. `head_dim`: of Q and K, 1 for others.
std::vector<float> double_quantized_scales(const MatrixSource& source, int64_t head_dim) {
  const size_t blocks = size_t(source.cols / kFourBitBlock);
  std::vector<float> absmax(size_t(source.rows) * blocks);
  std::vector<std::byte> stored(row_bytes(source.type, uint64_t(source.cols)));
  std::vector<float> weights(static_cast<size_t>(source.cols));
  for (int64_t row = 0; row < source.rows; ++row) {
    source.read_rows(row, 1, stored.data());
    dequantize_row(source.type, stored.data(), source.cols, weights.data());
    float* largest = &absmax[size_t(checkpoint_row(row, head_dim)) * blocks];
    for (size_t i = 0; i < weights.size(); ++i)
      largest[i / kFourBitBlock] = std::max(largest[i / kFourBitBlock], std::fabs(weights[i]));
  }
  const NestedScales nested = quantize_scales(absmax);
  const std::vector<float> scales =
      dequantize_scales(dynamic_map(), nested.codes, nested.nested_absmax, kNestedBlock, nested.offset);
  for (int64_t row = 0; row < source.rows; ++row)
    std::copy_n(&scales[size_t(checkpoint_row(row, head_dim)) * blocks], blocks,
                &absmax[size_t(row) * blocks]);
  return absmax;
}

// Blocks of NF4 or FP4 that were quantised with their own scales and get those that double quantisation
// leaves.
class DoubleQuantSource final : public MatrixSource {
 public:
  DoubleQuantSource(std::vector<float> absmax, std::unique_ptr<const MatrixSource> inner)
      : MatrixSource(inner->type, inner->rows, inner->cols),
        absmax_(std::move(absmax)),
        inner_(std::move(inner)) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    inner_->read_rows(first_row, n_rows, out);
    const size_t blocks = size_t(cols / kFourBitBlock), first = size_t(first_row) * blocks;
    for (size_t b = first; b < first + size_t(n_rows) * blocks; ++b, out += sizeof(BlockNF4))
      std::memcpy(out, &absmax_[b], sizeof(float));  // the first field
  }

 private:
  const std::vector<float> absmax_;  // (rows, cols / kFourBitBlock)
  const std::unique_ptr<const MatrixSource> inner_;
};

bool is_outside_layers(const ModelTensor& tensor) {
  return tensor.role == TensorRole::kTokenEmbedding || tensor.role == TensorRole::kOutput;
}

}  // namespace

QuantizedWeights::QuantizedWeights(const WeightStore& inner, const QuantMix& mix, const ModelConfig& config,
                                   bool double_quant)
    : WeightStore(inner.tensors()),
      inner_(inner),
      mix_(mix),
      config_(config),
      tied_(inner.tensors().back().role != TensorRole::kOutput),
      double_quant_(double_quant) {}

QuantType QuantizedWeights::type(const ModelTensor& tensor) const {
  if (!is_gguf_type(mix_.base) && is_outside_layers(tensor)) return inner_.type(tensor);
  return mixed_type(mix_, tensor, config_, tied_);
}

std::unique_ptr<const MatrixSource> QuantizedWeights::open(const ModelTensor& tensor) const {
  std::unique_ptr<const MatrixSource> source = inner_.open(tensor);
  const QuantType wanted = type(tensor);
  if (source->type == wanted) return source;
  auto blocks = std::make_unique<QuantizingSource>(std::move(source), wanted, tensor.name);
  if (!double_quant_ || is_gguf_type(wanted)) return blocks;
  const bool rotated = tensor.role == TensorRole::kQ || tensor.role == TensorRole::kK;
  return std::make_unique<DoubleQuantSource>(
      double_quantized_scales(*inner_.open(tensor), rotated ? config_.head_dim : 1), std::move(blocks));
}

}  // namespace maestrale
