// SPDX-License-Identifier: Apache-2.0
// Sources over safetensors tensors. All of them may be read by several threads at once: what they write is
// on the stack of the call.
#include "model/hf_source.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "quant/dequantize.h"
#include "quant/finite.h"
#include "quant/quantize.h"

namespace maestrale {

namespace {

[[noreturn]] void fail(const SafetensorsTensor& tensor, const std::string& problem) {
  throw Error(ErrorCode::kModelFormat, "tensor '" + tensor.name + "' " + problem);
}

QuantType stored_type(const SafetensorsTensor& tensor) {
  switch (tensor.dtype) {
    case SafetensorsDtype::kBF16: return QuantType::kBF16;
    case SafetensorsDtype::kF16: return QuantType::kF16;
    case SafetensorsDtype::kF32: return QuantType::kF32;
    default:
      throw Error(ErrorCode::kModelUnsupported, "tensor '" + tensor.name + "' has the dtype " +
                                                    std::string(dtype_name(tensor.dtype)) +
                                                    ", but weights must be BF16, F16 or F32");
  }
}

int64_t dimension(const SafetensorsTensor& tensor, size_t axis) {
  if (tensor.shape.size() != 2)
    fail(tensor, "has " + std::to_string(tensor.shape.size()) + " dimensions, but a matrix has 2");
  if (tensor.shape[axis] == 0) fail(tensor, "is empty");
  return int64_t(tensor.shape[axis]);  // the matrix lies in a file, so its sides are below 2^63
}

void check_rows(const MatrixSource& source, int64_t first_row, int64_t n_rows) {
  if (first_row < 0 || n_rows < 0 || first_row > source.rows || n_rows > source.rows - first_row)
    throw Error(ErrorCode::kInternal, "rows " + std::to_string(first_row) + " to " +
                                          std::to_string(first_row + n_rows) + " were asked of a matrix of " +
                                          std::to_string(source.rows));
}

}  // namespace

int64_t checkpoint_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

int64_t model_row(int64_t row, int64_t head_dim) {
  const int64_t in_head = row % head_dim, half = head_dim / 2;
  return row - in_head + in_head % half * 2 + in_head / half;
}

SafetensorsSource::SafetensorsSource(const MappedFile& file, const SafetensorsTensor& tensor)
    : MatrixSource(stored_type(tensor), dimension(tensor, 0), dimension(tensor, 1)),
      file_(file),
      offset_(tensor.offset) {}

void SafetensorsSource::read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const {
  check_rows(*this, first_row, n_rows);
  const uint64_t stride = row_bytes(type, uint64_t(cols));
  file_.read(offset_ + uint64_t(first_row) * stride, {out, size_t(uint64_t(n_rows) * stride)});
}

FiniteSource::FiniteSource(std::unique_ptr<const MatrixSource> inner, std::string name)
    : MatrixSource(inner->type, inner->rows, inner->cols), inner_(std::move(inner)), name_(std::move(name)) {}

void FiniteSource::read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const {
  inner_->read_rows(first_row, n_rows, out);
  const uint64_t stride = row_bytes(type, uint64_t(cols));
  for (int64_t row = 0; row < n_rows; ++row)
    if (!all_finite(type, out + uint64_t(row) * stride, cols))
      throw Error(ErrorCode::kModelFormat, "row " + std::to_string(first_row + row) + " of '" + name_ +
                                               "' holds a value that is not a finite number");
}

ReorderedSource::ReorderedSource(std::unique_ptr<const MatrixSource> inner, int64_t head_dim, RowOrder from)
    : MatrixSource(inner->type, inner->rows, inner->cols),
      inner_(std::move(inner)),
      head_dim_(head_dim),
      from_(from) {
  if (head_dim <= 0 || head_dim % 2 != 0 || rows % head_dim != 0)
    throw Error(ErrorCode::kModelFormat, "a matrix of " + std::to_string(rows) +
                                             " rows cannot be divided into heads of " +
                                             std::to_string(head_dim));
}

void ReorderedSource::read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const {
  check_rows(*this, first_row, n_rows);
  const uint64_t stride = row_bytes(type, uint64_t(cols));
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += stride)
    inner_->read_rows(from_(row, head_dim_), 1, out);
}

QuantizingSource::QuantizingSource(std::unique_ptr<const MatrixSource> inner, QuantType target,
                                   std::string name)
    : MatrixSource(target, inner->rows, inner->cols), inner_(std::move(inner)), name_(std::move(name)) {
  const QuantTraits& traits = quant_traits(target);
  if (!can_quantize(target))
    throw Error(ErrorCode::kInvalidArg, "'" + name_ + "' cannot be quantised to " + std::string(traits.name) +
                                            ", which is only read");
  if (cols % traits.items_per_block != 0)
    throw Error(ErrorCode::kInvalidArg, "'" + name_ + "' cannot be quantised to " + std::string(traits.name) +
                                            ": its " + std::to_string(cols) + " columns are no multiple of " +
                                            std::to_string(traits.items_per_block));
}

void QuantizingSource::read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const {
  check_rows(*this, first_row, n_rows);
  std::vector<std::byte> stored(row_bytes(inner_->type, uint64_t(cols)));
  std::vector<float> weights(static_cast<size_t>(cols));
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += row_bytes(type, uint64_t(cols))) {
    inner_->read_rows(row, 1, stored.data());
    dequantize_row(inner_->type, stored.data(), cols, weights.data());
    try {
      quantize_row(type, weights.data(), cols, out);
    } catch (const Error& error) {
      throw Error(error.code(), "row " + std::to_string(row) + " of '" + name_ + "': " + error.message());
    }
  }
}

}  // namespace maestrale
