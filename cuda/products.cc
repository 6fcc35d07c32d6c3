// SPDX-License-Identifier: Apache-2.0
#include "cuda/products.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace maestrale::cuda {
namespace {

DevicePointer address(Tensor t) { return DevicePointer(reinterpret_cast<uintptr_t>(t.data)); }

}  // namespace

void Products::prepare() {
  for (DeviceBuffer& records : records_) {
    records = {};
    records =
        DeviceBuffer(device_, scales_bytes(max_cols_) + uint64_t(max_rows_) * row_bytes_, "activations");
    put_zeros(device_, records.address(), scales_bytes(max_cols_));  // for rows that a step does not have
  }
  arrivals_ = {};
  arrivals_ = zeros_on(device_, arrival_bytes(max_rows_, max_cols_), "activations");
}

void Products::rms_norm(int n_rows, Tensor x, Tensor weight, float eps, Tensor out) {
  settle(n_rows, x);
  pending_ = {x, weight, out, eps};
}

void Products::settle(int n_rows, Tensor x) {
  if (x.data == nullptr || x.data != pending_.out.data) return;
  const Norm norm = std::exchange(pending_, {});
  kernels_.rms_norm({n_rows, 1, 256}, address(norm.x), address(norm.weight), address(norm.out), int(x.cols),
                    norm.eps);
}

void Products::quantize(int n_rows, Tensor x, Form form) {
  if (x.data == left_behind_ && form == left_form_) {
    now_ ^= 1;
    left_behind_ = nullptr;
    return;
  }
  const int units = int(units_of(x.cols));
  const DevicePointer records = records_at(now_);
  if (x.data == pending_.out.data)
    kernels_.norm_quantize[size_t(form)]({n_rows, 1, 512}, address(pending_.x), address(pending_.weight),
                                         records, int(x.cols), units, pending_.eps);
  else
    kernels_.quantize[size_t(form)]({n_rows, ceil_div(units, 4), 128}, address(x), records, int(x.cols),
                                    units);
}

void Products::multiply(int n_rows, std::span<const Part> parts, Epilogue epilogue, const HeadArgs* heads) {
  static_assert(std::has_unique_object_representations_v<MatmulArgs>);  // graphs are found by their bytes
  MatmulArgs args{};
  if (heads != nullptr) args.heads = *heads;
  const Matrix& first = *parts[0].projection.weight;
  const auto blocks = [&](int stripes_each) {
    int64_t all = 0;
    for (const Part& part : parts.first(epilogue == Epilogue::kSwiGlu ? 1 : parts.size()))
      all += ceil_div(part.projection.weight->rows, kStripeRows * stripes_each);
    return all;
  };
  for (size_t p = 0; p < parts.size(); ++p) {
    const auto& [weight, out] = parts[p].projection;
    const Matrix& w = *weight;
    forget(out);
    args.part[p] = {reinterpret_cast<const unsigned char*>(w.data), out.data, int(w.rows), parts[p].role};
    if (heads != nullptr) args.n_heads += int(w.rows) / heads->head_dim;
  }
  args.records = reinterpret_cast<const unsigned char*>(uintptr_t(records_at(now_)));
  if (epilogue == Epilogue::kSwiGlu) {
    args.next_records = reinterpret_cast<unsigned char*>(uintptr_t(records_at(1 - now_)));
    left_behind_ = parts[0].projection.out.data;
    left_form_ = form_of(first.type);
  }
  args.arrivals = reinterpret_cast<int*>(uintptr_t(arrivals_.address()));
  args.rows = n_rows;
  args.units = int(units_of(first.cols));
  args.epilogue = epilogue;
  const size_t type = type_index(first.type);
  const bool halves = !is_quantised(first.type);
  // matmul_few divides by kFewStripes what activations ask of the cache, but the blocks too: 4096 outputs
  // are 64. A multiprocessor takes from the cache several times its share of the memory's speed, so half of
  // them are held to be enough; where there are fewer blocks, matmul_many takes few rows as well.
  const bool fills = 2 * blocks(kFewStripes) >= device_.multiprocessors();
  if (n_rows == 1 && !halves)
    kernels_.matmul_row[type]({blocks(1), 1, 256}, args);
  else if (n_rows <= kFewRows && fills)
    kernels_.matmul_few[type]({blocks(kFewStripes), 1, 256}, args);
  else if (n_rows <= kManyRows || (halves && n_rows <= kMostRows))
    kernels_.matmul_many[type]({blocks(1), ceil_div(n_rows, kManyRows), 256}, args);
  else if (n_rows <= kMostRows)
    kernels_.matmul_most[type]({blocks(kMostStripes), 1, 256}, args);
  else
    kernels_.matmul_tile[type]({ceil_div(n_rows, kTileRows), blocks(kTileStripes), 256}, args);
}

void Products::multiply_f32(int n_rows, Tensor x, std::span<const Part> parts, bool add) {
  static_assert(std::has_unique_object_representations_v<F32Args>);
  F32Args args{};
  int64_t most = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    const auto& [weight, out] = parts[p].projection;
    forget(out);
    args.weight[p] = reinterpret_cast<const float*>(weight->data);
    args.out[p] = out.data;
    args.features[p] = int(weight->rows);
    most = std::max(most, weight->rows);
  }
  args.x = x.data;
  args.rows = n_rows;
  args.cols = int(parts[0].projection.weight->cols);
  args.adds = add;
  kernels_.matmul_f32({ceil_div(most, 4), ceil_div(n_rows, 8), 128, int64_t(parts.size())}, args);
}

void Products::matmul(int n_rows, Tensor x, std::span<const Projection> projections, const HeadArgs* heads) {
  const auto tiled = [](const Projection& p) { return is_tiled(p.weight->type); };
  if (!std::all_of(projections.begin(), projections.end(), tiled)) settle(n_rows, x);
  std::vector<Part> left;
  for (const Projection& projection : projections) left.push_back({projection, Role(left.size())});
  std::optional<Form> form_there;  // of x in the records
  while (!left.empty()) {
    const QuantType type = left[0].projection.weight->type;
    const auto others = std::stable_partition(
        left.begin(), left.end(), [&](const Part& p) { return p.projection.weight->type == type; });
    const std::span parts(left.data(), size_t(others - left.begin()));
    if (is_tiled(type)) {
      const Form form = form_of(type);
      if (form_there != form) quantize(n_rows, x, form);
      form_there = form;
      multiply(n_rows, parts, heads != nullptr ? Epilogue::kHeads : Epilogue::kStore, heads);
    } else {
      multiply_f32(n_rows, x, parts, false);
    }
    left.erase(left.begin(), others);
  }
}

void Products::matmul_rows(RowRange rows, Tensor x, const Projection& projection) {
  const auto from_row = [&](Tensor t) { return Tensor{t.data + rows.first * t.cols, t.cols}; };
  const Norm norm = pending_;  // of all rows, which others may still want
  if (x.data == norm.out.data) pending_ = {from_row(norm.x), norm.weight, from_row(norm.out), norm.eps};
  const Projection part{projection.weight, from_row(projection.out)};
  matmul(rows.count, from_row(x), {&part, 1});
  pending_ = norm;
}

void Products::matmul_add(int n_rows, Tensor x, const Matrix& weight, Tensor residual) {
  const Part part{{&weight, residual}};
  if (!is_tiled(weight.type)) {
    settle(n_rows, x);
    return multiply_f32(n_rows, x, {&part, 1}, true);
  }
  quantize(n_rows, x, form_of(weight.type));
  multiply(n_rows, {&part, 1}, Epilogue::kAdd);
}

void Products::swiglu(int n_rows, Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out,
                      Tensor scratch) {
  const Projection gate{&w_gate, out};
  if (is_tiled(w_gate.type) && w_gate.type == w_up.type) {
    const Part parts[] = {{gate}, {{&w_up, out}}};
    quantize(n_rows, x, form_of(w_gate.type));
    return multiply(n_rows, parts, Epilogue::kSwiGlu);
  }
  const Projection both[] = {gate, {&w_up, scratch}};
  matmul(n_rows, x, both);
  const int64_t n = n_rows * out.cols;
  kernels_.silu_multiply({ceil_div(n, 256), 1, 256}, address(out), address(scratch), n);
}

}  // namespace maestrale::cuda
