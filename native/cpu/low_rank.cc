// SPDX-License-Identifier: Apache-2.0
#include "cpu/low_rank.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/integer.h"
#include "cpu/pack.h"
#include "cpu/panel_layout.h"

namespace maestrale {
namespace {

constexpr int64_t kPieceColumns = 1024;  // of the input, a multiple of every unit of floats
constexpr int64_t kPieceRows = 64;       // that a thread multiplies with one piece at a time
constexpr int64_t kGrain = 64;           // panels of lora_b that a thread takes at a time

class CpuAdapterStorage final : public AdapterStorage {
 public:
  explicit CpuAdapterStorage(uint64_t bytes) : buffer_(bytes, "the adapter") {}

  Matrix load_lora_a(const MatrixSource& source) override { return load_matrix(source); }
  Matrix load_lora_b(const MatrixSource& source) override { return load_matrix(source); }
  Matrix load_matrix(const MatrixSource& source) override {
    const uint64_t stride = panel_bytes(source.type, source.cols),
                   row = row_bytes(source.type, uint64_t(source.cols));
    std::byte* data = take(uint64_t(panel_count(source.rows)) * stride);
    std::vector<std::byte> rows(kPanelRows * row);
    for (int64_t first = 0; first < source.rows; first += kPanelRows) {
      const int64_t n = std::min<int64_t>(kPanelRows, source.rows - first);
      source.read_rows(first, n, rows.data());
      pack_panel(source.type, rows.data(), int(n), source.cols, data + uint64_t(first / kPanelRows) * stride);
    }
    return {source.type, source.rows, source.cols, data};
  }
  Matrix load_table(const MatrixSource& source) override {
    std::byte* data = take(uint64_t(source.rows) * row_bytes(source.type, uint64_t(source.cols)));
    source.read_rows(0, source.rows, data);
    return {source.type, source.rows, source.cols, data};
  }
  Tensor load_vector(std::span<const float> values) override {
    auto* data = reinterpret_cast<float*>(take(values.size_bytes()));
    std::copy(values.begin(), values.end(), data);
    return {data, int64_t(values.size())};
  }
  uint64_t bytes() const override { return used_; }

 private:
  std::byte* take(uint64_t bytes) {
    if (used_ + bytes > buffer_.bytes())
      throw Error(ErrorCode::kInternal, "reserve_adapter was given " + std::to_string(buffer_.bytes()) +
                                            " bytes, at least " + std::to_string(used_ + bytes) +
                                            " are needed");
    std::byte* at = buffer_.data() + used_;
    used_ += round_up(bytes, 64);
    return at;
  }

  Buffer buffer_;
  uint64_t used_ = 0;
};

}  // namespace

std::unique_ptr<AdapterStorage> make_cpu_adapter_storage(uint64_t bytes) {
  return std::make_unique<CpuAdapterStorage>(bytes);
}

void CpuLowRank::run(Tensor x, RowRange rows, std::span<const LowRankProduct> products) {
  if (products.size() > kMostProducts)
    throw Error(ErrorCode::kInternal, std::to_string(products.size()) + " products of an adapter at once");
  Part parts[kMostProducts];
  int64_t sums = 0, down = 0, pieces = 0, panels = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const LowRank& delta = *products[i].delta;
    parts[i] = {delta.lora_b.cols, ceil_div(delta.lora_a.cols, kPieceColumns), sums, down};
    sums += parts[i].pieces * rows.count * parts[i].rank;
    down += rows.count * parts[i].rank;
    pieces += parts[i].pieces;
    panels += panel_count(delta.lora_b.rows);
  }
  sums_.grow(uint64_t(sums) * sizeof(float), "activations");
  down_.grow(uint64_t(down * pool_.size()) * sizeof(float), "activations");
  const int64_t row_blocks = ceil_div(rows.count, kPieceRows);

  pool_.run([&](int worker) {
    pool_.share(0, worker, pieces * row_blocks, 1, [&](int64_t begin, int64_t) {
      if (interrupted()) return;
      const int32_t first = int32_t(begin / pieces * kPieceRows);
      const RowRange block{first, std::min(int32_t(kPieceRows), rows.count - first)};
      int64_t piece = begin % pieces;
      for (size_t i = 0; i < products.size(); piece -= parts[i].pieces, ++i)
        if (piece >= 0 && piece < parts[i].pieces) {
          sum_piece(x, rows, block, products[i], parts[i], piece);
          break;
        }
    });
    pool_.barrier();
    // Every worker for itself: that is less work than waiting for one another again.
    float* own = down_.floats() + int64_t(worker) * down;
    for (size_t i = 0; i < products.size(); ++i) add_sums(rows, products[i], parts[i], own + parts[i].down);
    pool_.share(1, worker, panels, kGrain, [&](int64_t begin, int64_t end) {
      if (interrupted()) return;
      int64_t first = 0;  // of this product in the joint list of panels
      for (size_t i = 0; i < products.size(); ++i) {
        const int64_t n = panel_count(products[i].delta->lora_b.rows);
        const int64_t from = std::max(begin - first, int64_t(0)), to = std::min(end - first, n);
        first += n;
        if (from < to) expand(rows, products[i], own + parts[i].down, from, to);
      }
    });
  });
}

// sums[piece][row] = x[row] * lora_a^T over the columns of the piece, for the rows of `block` within `rows`.
void CpuLowRank::sum_piece(Tensor x, RowRange rows, RowRange block, const LowRankProduct& product,
                           const Part& part, int64_t piece) {
  const Matrix& a = product.delta->lora_a;
  const int64_t first = piece * kPieceColumns, cols = std::min(kPieceColumns, a.cols - first);
  GemmJob job{};
  job.panel_stride = int64_t(panel_bytes(a.type, a.cols));
  job.panels = a.data + panel_bytes(a.type, first);
  job.n_panels = int32_t(part.rank / kPanelRows);
  job.units = panel_units(a.type, cols);
  job.x = reinterpret_cast<const std::byte*>(x.data + int64_t(rows.first + block.first) * x.cols + first);
  job.x_stride = x.cols * int64_t(sizeof(float));
  job.n_rows = block.count;
  job.out = sums_.floats() + part.sums + (piece * rows.count + block.first) * part.rank;
  job.out_stride = job.out_cols = part.rank;
  kernels_.gemm[int(a.type)](job);
}

void CpuLowRank::add_sums(RowRange rows, const LowRankProduct& product, const Part& part, float* down) const {
  const int64_t n = rows.count * part.rank;
  const float* sums = sums_.floats() + part.sums;
  std::copy(sums, sums + n, down);
  for (int64_t piece = 1; piece < part.pieces; ++piece)
    for (int64_t i = 0; i < n; ++i) down[i] += sums[piece * n + i];
  for (int64_t i = 0; i < n; ++i) down[i] *= product.delta->scaling;
}

// out += down * lora_b^T for panels [from, to), and times the factor where there is one.
void CpuLowRank::expand(RowRange rows, const LowRankProduct& product, const float* down, int64_t from,
                        int64_t to) const {
  const Matrix& b = product.delta->lora_b;
  const int64_t stride = int64_t(panel_bytes(b.type, b.cols)), col = from * kPanelRows;
  const int64_t cols = std::min(to * kPanelRows, b.rows) - col, whole = cols / kPanelRows;
  float* out = product.out.data + int64_t(rows.first) * product.out.cols + col;
  GemmJob job{};
  job.panels = b.data + from * stride;
  job.panel_stride = stride;
  job.n_panels = int32_t(whole);
  job.units = panel_units(b.type, b.cols);
  job.x = reinterpret_cast<const std::byte*>(down);
  job.x_stride = b.cols * int64_t(sizeof(float));
  job.n_rows = rows.count;
  job.out = out;
  job.out_stride = product.out.cols;
  job.out_cols = whole * kPanelRows;
  job.accumulate = true;
  if (whole > 0) kernels_.gemm[int(b.type)](job);
  if (const int64_t left = cols % kPanelRows; left > 0) {  // the kernels add whole panels only
    for (int32_t row = 0; row < rows.count; ++row) {
      float last[kPanelRows];
      job.panels = b.data + (from + whole) * stride;
      job.n_panels = 1;
      job.x = reinterpret_cast<const std::byte*>(down + row * b.cols);
      job.n_rows = 1;
      job.out = last;
      job.out_stride = job.out_cols = kPanelRows;
      job.accumulate = false;
      kernels_.gemm[int(b.type)](job);
      float* to_row = out + row * product.out.cols + whole * kPanelRows;
      for (int64_t i = 0; i < left; ++i) to_row[i] += last[i];
    }
  }
  if (product.delta->factor.data == nullptr) return;
  const float* factor = product.delta->factor.data + col;
  for (int32_t row = 0; row < rows.count; ++row)
    for (int64_t i = 0; i < cols; ++i) out[row * product.out.cols + i] *= factor[i];
}

}  // namespace maestrale
