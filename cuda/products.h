// SPDX-License-Identifier: Apache-2.0
// Products of activations with weights. Quantised weights multiply with activations in integers, F16 and BF16
// with pairs of halves (tile_layout.h); the kernel is chosen by the number of rows, and all give the same
// bits. F32 stays in binary32.
#pragma once

#include <algorithm>
#include <span>

#include "backend/backend.h"
#include "base/integer.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/matmul_args.h"
#include "cuda/tile_layout.h"

namespace maestrale::cuda {

constexpr bool is_quantised(QuantType type) { return quant_traits(type).items_per_block > 1; }
// Lies in stripes and takes activations from records.
constexpr bool is_tiled(QuantType type) { return type != QuantType::kF32; }
constexpr int64_t units_of(int64_t cols) { return ceil_div(cols, kUnitCols); }

// out = x / sqrt(mean(x^2) + eps) * weight, not computed yet.
struct Norm {
  Tensor x, weight, out;
  float eps = 0;
};

class Products {
  enum class Form { kQ256, kQ32, kQ32Wide, kHalves };  // see tile_layout.h; by position in Kernels::quantize
  static Form form_of(QuantType type) {
    if (!is_quantised(type)) return Form::kHalves;
    const int64_t block = quant_traits(type).items_per_block;
    return block == kUnitCols ? Form::kQ256 : block == 64 ? Form::kQ32Wide : Form::kQ32;
  }

 public:
  Products(const Device& device, const Kernels& kernels) : device_(device), kernels_(kernels) {}

  // Tells of batches of up to `rows` rows, and of weights for inputs of `cols` columns; prepare() then makes
  // room.
  void expect_rows(int64_t rows) { max_rows_ = std::max(max_rows_, rows); }
  void expect_weights(QuantType type, int64_t cols) {
    max_cols_ = std::max(max_cols_, cols);
    if (is_tiled(type)) row_bytes_ = std::max(row_bytes_, record_bytes(form_of(type), cols));
  }
  void prepare();
  // What that and steps take, see Backend.
  static uint64_t scratch_bytes(int64_t max_rows, int64_t max_cols) {
    return 2 * (scales_bytes(max_cols) + uint64_t(max_rows) * record_bytes(Form::kHalves, max_cols)) +
           arrival_bytes(max_rows, max_cols);
  }

  // out = x / sqrt(mean(x^2) + eps) * weight. Computed with the product that takes `out`, or by settle(out);
  // `x` must be as it was until then.
  void rms_norm(int n_rows, Tensor x, Tensor weight, float eps, Tensor out);
  // Makes sure that x is in memory: for everybody but products.
  void settle(int n_rows, Tensor x);
  // The norm that x is still to go through; nullptr: x is in memory. Whether it is depends on the model only,
  // not on the batch.
  const Norm* norm_before(Tensor x) const { return x.data == pending_.out.data ? &pending_ : nullptr; }
  // Told when `out` is about to be written by others.
  void forget(Tensor out) {
    if (out.data == pending_.out.data) pending_ = {};
    if (out.data == left_behind_) left_behind_ = nullptr;
  }

  void matmul(int n_rows, Tensor x, std::span<const Projection> projections) {
    matmul(n_rows, x, projections, nullptr);
  }
  // The products that make q, k and v, whose heads are then finished as `heads` says. All weights must be
  // tiled, and head_dim a multiple of kStripeRows.
  void matmul_heads(int n_rows, Tensor x, std::span<const Projection, 3> qkv, const HeadArgs& heads) {
    matmul(n_rows, x, qkv, &heads);
  }
  // The same for some rows of x and out only.
  void matmul_rows(RowRange rows, Tensor x, const Projection& projection);
  void matmul_add(int n_rows, Tensor x, const Matrix& weight, Tensor residual);
  void swiglu(int n_rows, Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out, Tensor scratch);

 private:
  // Before the records: the scales of all units, in whole lines of memory.
  static uint64_t scales_bytes(int64_t cols) {
    return uint64_t(ceil_div(units_of(cols) * kScalesBytes, 256) * 256);
  }
  DevicePointer records_at(int which) const { return records_[which].address() + scales_bytes(max_cols_); }
  // Of all records of a row.
  static uint64_t record_bytes(Form form, int64_t cols) {
    const int unit = form == Form::kHalves    ? kHalfRecordBytes
                     : form == Form::kQ32Wide ? 2 * kRecordBytes
                                              : kRecordBytes;
    return uint64_t(units_of(cols)) * uint64_t(unit);
  }
  // For the heads of q, k and v, which are more than there are units.
  static uint64_t arrival_bytes(int64_t rows, int64_t cols) {
    return uint64_t(ceil_div(rows, kManyRows) * 3 * ceil_div(cols, kStripeRows)) * sizeof(int);
  }
  void quantize(int n_rows, Tensor x, Form form);
  struct Part {
    Projection projection;
    Role role = Role::kQuery;
  };
  void matmul(int n_rows, Tensor x, std::span<const Projection> projections, const HeadArgs* heads);
  // Products of the records with parts of one type.
  void multiply(int n_rows, std::span<const Part> parts, Epilogue epilogue, const HeadArgs* heads = nullptr);
  void multiply_f32(int n_rows, Tensor x, std::span<const Part> parts, bool add);

  const Device& device_;
  const Kernels& kernels_;
  int64_t max_rows_ = 0, max_cols_ = 0;
  uint64_t row_bytes_ = 0;  // of a row's records
  DeviceBuffer records_[2], arrivals_;
  int now_ = 0;   // the records that the next product takes
  Norm pending_;  // out.data is null where there is none
  // What a product has left in records_[1 - now_] beside its output: that output in eight bits.
  const float* left_behind_ = nullptr;
  Form left_form_ = Form::kQ256;
};

}  // namespace maestrale::cuda
