// SPDX-License-Identifier: Apache-2.0
// Products of activations with weights. Quantised weights multiply with activations in eight bits
// (tile_layout.h); the kernel is chosen by the number of rows, and all give the same bits. Floating types
// stay in binary32.
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
constexpr int64_t units_of(int64_t cols) { return ceil_div(cols, kUnitCols); }

class Products {
 public:
  Products(const Device& device, const Kernels& kernels) : device_(device), kernels_(kernels) {}

  // Tells of a tensor of this shape; prepare() then makes room for the activations of all of them.
  void expect(int64_t rows, int64_t cols) {
    max_rows_ = std::max(max_rows_, rows);
    max_units_ = std::max(max_units_, units_of(cols));
  }
  // Tells of the type of weights, likewise.
  void expect(QuantType type) { wide_ |= is_quantised(type) && form_of(type) == Form::kQ32Wide; }
  void prepare();
  // What that and steps take, see Backend.
  static uint64_t scratch_bytes(int64_t max_rows, int64_t max_cols, int64_t hidden_dim) {
    const int64_t units = units_of(max_cols);
    return 2 * record_bytes(max_rows, units, /* wide */ true) + arrival_bytes(max_rows, units) +
           uint64_t(max_rows * hidden_dim) * sizeof(float);
  }

  // out = x / sqrt(mean(x^2) + eps) * weight. Computed with the product that takes `out`, or by settle(out);
  // `x` must be as it was until then.
  void rms_norm(int n_rows, Tensor x, Tensor weight, float eps, Tensor out);
  // Makes sure that x is in memory: for everybody but products.
  void settle(int n_rows, Tensor x);
  // Told when `out` is about to be written by others.
  void forget(Tensor out) {
    if (out.data == pending_.out.data) pending_ = {};
    if (out.data == left_behind_) left_behind_ = nullptr;
  }

  void matmul(int n_rows, Tensor x, std::span<const Projection> projections) {
    matmul(n_rows, x, projections, nullptr);
  }
  // The products that make q, k and v, whose heads are then finished as `heads` says. All weights must be
  // quantised, and head_dim a multiple of kStripeRows.
  void matmul_heads(int n_rows, Tensor x, std::span<const Projection, 3> qkv, const HeadArgs& heads) {
    matmul(n_rows, x, qkv, &heads);
  }
  void matmul_add(int n_rows, Tensor x, const Matrix& weight, Tensor residual);
  void swiglu(int n_rows, Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out);

 private:
  struct Norm {
    Tensor x, weight, out;
    float eps = 0;
  };
  enum class Form { kQ256, kQ32, kQ32Wide };  // see tile_layout.h; by position in Kernels::quantize
  static Form form_of(QuantType type) {
    const int64_t block = quant_traits(type).items_per_block;
    return block == kUnitCols ? Form::kQ256 : block == 64 ? Form::kQ32Wide : Form::kQ32;
  }
  static uint64_t record_bytes(int64_t rows, int64_t units, bool wide) {
    return uint64_t(rows * units) * kRecordBytes * (wide ? 2 : 1);
  }
  // For the heads of q, k and v, which are more than there are units.
  static uint64_t arrival_bytes(int64_t rows, int64_t units) {
    const int64_t most_heads = 3 * units * kUnitCols / kStripeRows;
    return uint64_t(ceil_div(rows, kTileRows) * most_heads) * sizeof(int);
  }
  void quantize(int n_rows, Tensor x, Form form);
  struct Part {
    Projection projection;
    Role role = Role::kQuery;
  };
  void matmul(int n_rows, Tensor x, std::span<const Projection> projections, const HeadArgs* heads);
  // Products of the records with parts of one type.
  void multiply(int n_rows, std::span<const Part> parts, Epilogue epilogue, const HeadArgs* heads = nullptr);
  void multiply_floats(int n_rows, Tensor x, const Projection& projection, bool add);

  const Device& device_;
  const Kernels& kernels_;
  int64_t max_rows_ = 0, max_units_ = 0;
  bool wide_ = false;  // some weights take records of the form kQ32Wide
  DeviceBuffer records_[2], arrivals_, up_;
  int now_ = 0;   // the records that the next product takes
  Norm pending_;  // out.data is null where there is none
  // What a product has left in records_[1 - now_] beside its output: that output in eight bits.
  const float* left_behind_ = nullptr;
  Form left_form_ = Form::kQ256;
};

}  // namespace maestrale::cuda
