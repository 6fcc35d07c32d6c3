// SPDX-License-Identifier: Apache-2.0
// Rows of weight matrices out of Hugging Face checkpoints: as stored, with the rows of Q and K reordered
// for interleaved RoPE and back, quantised on the fly. The sources wrap one another and hold no rows
// themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "quant/matrix_source.h"

namespace maestrale {

// A tensor of shape (rows, cols) and dtype BF16, F16 or F32, read from its file with pread.
class SafetensorsSource final : public MatrixSource {
 public:
  // `file` must outlive the source. Throws Error{kModelUnsupported} for another dtype and
  // Error{kModelFormat} for another number of dimensions or an empty matrix.
  SafetensorsSource(const MappedFile& file, const SafetensorsTensor& tensor);
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override;

 private:
  const MappedFile& file_;
  const uint64_t offset_;
};

// The rows of another source of floats, which must be finite. Reading others throws Error{kModelFormat} with
// the row and `name`, what error messages call the matrix.
class FiniteSource final : public MatrixSource {
 public:
  FiniteSource(std::unique_ptr<const MatrixSource> inner, std::string name);
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override;

 private:
  const std::unique_ptr<const MatrixSource> inner_;
  const std::string name_;
};

// Where row `row` of a model's Q or K, which is in the order of interleaved RoPE, is in a Hugging Face
// checkpoint. Within a head of D rows
//
//   row 2m + s  is row  s * D/2 + m  of the checkpoint          m = 0 .. D/2 - 1, s = 0, 1
//
// because there the two halves of a head rotate against each other, here neighbours do.
int64_t checkpoint_row(int64_t row, int64_t head_dim);
// The converse: where row `row` of a checkpoint is in the model.
int64_t model_row(int64_t row, int64_t head_dim);

// Q or K with the rows of each head in another order: row i is row from(i, head_dim) of the inner source.
// checkpoint_row makes a model's out of a checkpoint's, model_row the converse.
class ReorderedSource final : public MatrixSource {
 public:
  using RowOrder = int64_t (*)(int64_t row, int64_t head_dim);
  // Throws Error{kModelFormat} unless the rows are whole heads of `head_dim`, which must be even.
  ReorderedSource(std::unique_ptr<const MatrixSource> inner, int64_t head_dim, RowOrder from);
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override;

 private:
  const std::unique_ptr<const MatrixSource> inner_;
  const int64_t head_dim_;
  const RowOrder from_;
};

// The rows of another source, quantised to `type` whenever they are read; a row of floats at a time is all
// the memory this takes.
class QuantizingSource final : public MatrixSource {
 public:
  // `name` is what error messages call the matrix. Throws Error{kInvalidArg} when the type cannot be written
  // or its blocks do not divide the columns.
  QuantizingSource(std::unique_ptr<const MatrixSource> inner, QuantType type, std::string name);
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override;

 private:
  const std::unique_ptr<const MatrixSource> inner_;
  const std::string name_;
};

}  // namespace maestrale
