// SPDX-License-Identifier: Apache-2.0
#include "model/gguf_weights.h"

#include <set>
#include <string>
#include <string_view>

#include "base/error.h"

namespace maestrale {
namespace {

class FileMatrix final : public MatrixSource {
 public:
  FileMatrix(const MappedFile& file, const GgufTensor& tensor)
      : MatrixSource(tensor.type, tensor.rows, tensor.cols), file_(file), tensor_(tensor) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    if (first_row < 0 || n_rows < 0 || n_rows > rows - first_row)
      throw Error(ErrorCode::kInternal, "rows " + std::to_string(first_row) + " to " +
                                            std::to_string(first_row + n_rows) + " of '" +
                                            std::string(tensor_.name) + "' were asked for");
    const uint64_t bytes = row_bytes(type, uint64_t(cols));
    file_.read(tensor_.offset + uint64_t(first_row) * bytes, {out, size_t(uint64_t(n_rows) * bytes)});
  }

 private:
  const MappedFile& file_;
  const GgufTensor tensor_;
};

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t dim : shape) text += (text.empty() ? "" : " x ") + std::to_string(dim);
  return text;
}

void check_tensor(const GgufFile& header, const ModelTensor& spec) {
  const GgufTensor* tensor = header.find_tensor(spec.name);
  if (tensor == nullptr)
    throw Error(ErrorCode::kModelFormat, "tensor '" + spec.name + "' is missing from the file");
  // Writers may append dimensions of 1, but [1, n] is not [n].
  const bool matches =
      tensor->cols == spec.cols && tensor->rows == spec.rows &&
      (spec.rows == 1 || (tensor->shape.size() > 1 && tensor->shape[1] == uint64_t(spec.rows)));
  if (!matches)
    throw Error(ErrorCode::kModelFormat, "tensor '" + spec.name + "' has shape " + shape_text(tensor->shape) +
                                             ", but the metadata demands " + std::to_string(spec.cols) +
                                             (spec.is_norm() ? "" : " x " + std::to_string(spec.rows)));
}

// Anything else in the file would change what the model computes, or be something else entirely.
void check_nothing_left(const GgufFile& header, const std::vector<ModelTensor>& specs) {
  std::set<std::string_view> used;
  for (const ModelTensor& spec : specs) used.insert(spec.name);
  for (const GgufTensor& tensor : header.tensors()) {
    if (used.count(tensor.name) != 0) continue;
    const std::string name = "tensor '" + std::string(tensor.name) + "'";
    const char* reason = ", which is no part of a Mistral model";
    if (tensor.name == "rope_freqs.weight") reason = ", a RoPE scaling that this engine does not run";
    if (tensor.name.ends_with(".bias")) reason = ", a bias that this engine does not run: Mistral has none";
    throw Error(ErrorCode::kModelUnsupported, "the file has a " + name + reason);
  }
}

std::vector<ModelTensor> checked_tensors(const MappedFile& file, const GgufFile& header,
                                         const ModelConfig& config) {
  if (header.tensors().empty())
    throw Error(ErrorCode::kModelFormat,
                "'" + file.path() + "' holds a vocabulary but no weights, so no model can be loaded from it");
  std::vector<ModelTensor> specs = model_tensors(config);
  if (header.find_tensor(specs.back().name) == nullptr) specs.pop_back();  // tied to the embedding
  for (const ModelTensor& spec : specs) check_tensor(header, spec);
  check_nothing_left(header, specs);
  return specs;
}

}  // namespace

std::unique_ptr<const MatrixSource> gguf_matrix(const MappedFile& file, const GgufTensor& tensor) {
  return std::make_unique<FileMatrix>(file, tensor);
}

GgufWeights::GgufWeights(const MappedFile& file, const GgufFile& header, const ModelConfig& config)
    : WeightStore(checked_tensors(file, header, config)), file_(file), header_(header) {}

QuantType GgufWeights::type(const ModelTensor& tensor) const {
  return header_.find_tensor(tensor.name)->type;
}

std::unique_ptr<const MatrixSource> GgufWeights::open(const ModelTensor& tensor) const {
  return gguf_matrix(file_, *header_.find_tensor(tensor.name));
}

}  // namespace maestrale
