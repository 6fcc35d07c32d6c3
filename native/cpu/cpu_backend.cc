// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/adapter_ops.h"
#include "base/error.h"
#include "base/integer.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "cpu/attention.h"
#include "cpu/isa.h"
#include "cpu/kv_cache.h"
#include "cpu/low_rank.h"
#include "cpu/matmul.h"
#include "cpu/pack.h"
#include "cpu/panel_layout.h"
#include "quant/dequantize.h"

namespace maestrale {
namespace {

class CpuBackend final : public Backend, private AdapterOps {
 public:
  explicit CpuBackend(const CpuOptions& options)
      : kernels_(select_kernels(options.isa)),
        pool_(options.threads > 0 ? options.threads : available_cpus()),
        matmul_(pool_, kernels_),
        attention_(pool_, kernels_),
        low_rank_(pool_, kernels_),
        filled_(options.weights),
        filled_owner_(options.weights_owner) {}

  std::string_view device() const override { return "cpu"; }
  std::string_view isa() const override { return kernels_.name; }
  int32_t threads() const override { return pool_.size(); }

  // ---- weights ----
  uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return cpu_matrix_bytes(type, rows, cols);
  }
  uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return cpu_table_bytes(type, rows, cols);
  }
  void reserve_weights(uint64_t bytes) override {
    if (!is_filled())
      weights_ = Buffer(bytes, "the weights");
    else if (bytes != filled_.size())
      throw Error(ErrorCode::kModelFormat, "the packed weights have " + std::to_string(filled_.size()) +
                                               " bytes, but the model takes " + std::to_string(bytes));
    used_ = 0;
  }
  std::span<const std::byte> weights() const {
    return is_filled() ? filled_ : std::span<const std::byte>(weights_.data(), size_t(weights_.bytes()));
  }
  Matrix load_matrix(const MatrixSource& source) override;
  Matrix load_table(const MatrixSource& source) override;
  Tensor load_vector(std::span<const float> values) override {
    Tensor tensor = allocate(1, int64_t(values.size()));
    std::copy(values.begin(), values.end(), tensor.data);
    return tensor;
  }

  // ---- memory ----
  Tensor allocate(int64_t rows, int64_t cols) override {
    buffers_.emplace_back(uint64_t(rows) * uint64_t(cols) * sizeof(float), "activations");
    return {buffers_.back().floats(), cols};
  }
  void configure_kv(const KvConfig& config) override { cache_ = CpuKvCache(config); }
  uint64_t kv_page_bytes(const KvConfig& config) const override { return CpuKvCache::page_bytes(config); }
  uint64_t scratch_bytes(const KvConfig&, int64_t max_rows, int64_t max_cols) const override {
    return uint64_t(max_rows * max_cols) * 4;  // quantised activations, in two forms at most
  }
  void set_interrupt(const std::atomic<bool>* flag) override {
    matmul_.set_interrupt(flag);
    attention_.set_interrupt(flag);
    low_rank_.set_interrupt(flag);
  }
  void set_rope(std::span<const double> inv_freq) override {
    inv_freq_.assign(inv_freq.begin(), inv_freq.end());
  }

  // ---- operations ----
  void begin(const Batch& batch) override;
  void embed(const Matrix& table, Tensor out) override {
    for_rows([&](int64_t row) { embed_row(table, row, out); });
  }
  void rms_norm(Tensor x, Tensor weight, float eps, Tensor out) override {
    for_rows([&](int64_t row) {
      kernels_.rms_norm(x.data + row * x.cols, weight.data, eps, x.cols, out.data + row * out.cols);
    });
  }
  void matmul(Tensor x, std::span<const Projection> projections) override {
    matmul_.run(x, n_rows_, projections, false);
  }
  void matmul_add(Tensor x, const Matrix& weight, Tensor residual) override {
    const Projection projection{&weight, residual};
    matmul_.run(x, n_rows_, {&projection, 1}, true);
  }
  void swiglu(Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out, Tensor) override {
    matmul_.run_swiglu(x, n_rows_, w_gate, w_up, out);
  }
  void rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) override;
  void attention(int32_t layer, Tensor q, Tensor out) override {
    attention_.run(cache_, *batch_, layer, q, out);
  }
  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override {
    for (size_t i = 0; i < rows.size(); ++i)
      std::memmove(out.data + int64_t(i) * out.cols, x.data + rows[i] * x.cols,
                   size_t(x.cols) * sizeof(float));
    n_rows_ = int32_t(rows.size());
  }
  std::span<const float> read(Tensor x, int64_t n_rows) override { return {x.data, size_t(n_rows * x.cols)}; }
  void write(std::span<const float> rows, Tensor x) override { std::copy(rows.begin(), rows.end(), x.data); }

  // ---- adapters ----
  AdapterOps& adapters() override { return *this; }
  std::unique_ptr<AdapterStorage> reserve_adapter(uint64_t bytes) override {
    return make_cpu_adapter_storage(bytes);
  }
  void set_adapters(std::span<const AdapterRows> groups) override {
    adapted_rows_.assign(groups.begin(), groups.end());
  }
  void add_low_rank(Tensor x, std::span<const NumberedProduct> products) override;
  void add_low_rank_sum(Tensor x, const NumberedProduct& product, Tensor residual) override {
    add_low_rank(x, {&product, 1});
    for_rows([&](int64_t row) {
      const float* from = product.out.data + row * residual.cols;
      float* to = residual.data + row * residual.cols;
      for (int64_t i = 0; i < residual.cols; ++i) to[i] += from[i];
    });
  }
  void add_low_rank_gate(Tensor x, const NumberedProduct& gate, const NumberedProduct& up,
                         Tensor out) override {
    const NumberedProduct both[] = {gate, up};
    add_low_rank(x, both);
    for_rows([&](int64_t row) {
      const int64_t at = row * out.cols;
      kernels_.swiglu(gate.out.data + at, up.out.data + at, out.cols, out.data + at);
    });
  }
  void embed_rows(const Matrix& table, RowRange rows, Tensor out) override {
    for (int32_t i = 0; i < rows.count; ++i) embed_row(table, rows.first + i, out);
  }
  void matmul_rows(Tensor x, RowRange rows, const Projection& projection) override {
    const Projection part{projection.weight, from_row(projection.out, rows.first)};
    matmul_.run(from_row(x, rows.first), rows.count, {&part, 1}, false);
  }

 private:
  void embed_row(const Matrix& table, int64_t row, Tensor out) const {
    const uint64_t stride = row_bytes(table.type, uint64_t(table.cols));
    dequantize_row(table.type, table.data + uint64_t(batch_->tokens[size_t(row)]) * stride, table.cols,
                   out.data + row * out.cols);
  }
  static Tensor from_row(Tensor x, int64_t row) { return {x.data + row * x.cols, x.cols}; }

  // body(row) for every row of the batch, shared among the threads.
  template <class Body>
  void for_rows(Body&& body) {
    if (n_rows_ == 1) return body(int64_t(0));
    pool_.run([&](int worker) {
      pool_.share(0, worker, n_rows_, 1, [&](int64_t begin, int64_t) { body(begin); });
    });
  }
  bool is_filled() const { return filled_owner_ != nullptr; }
  // Offset in weights() of the next `bytes` bytes.
  uint64_t take_weights(uint64_t bytes);

  const Kernels& kernels_;
  ThreadPool pool_;
  CpuMatmul matmul_;
  CpuAttention attention_;
  CpuLowRank low_rank_;
  std::vector<AdapterRows> adapted_rows_;
  CpuKvCache cache_;
  Buffer weights_;
  std::span<const std::byte> filled_;  // in place of weights_
  std::shared_ptr<const void> filled_owner_;
  uint64_t used_ = 0;  // bytes of weights() handed out
  std::vector<Buffer> buffers_;
  std::vector<double> inv_freq_;  // (head_dim / 2)

  const Batch* batch_ = nullptr;
  int32_t n_rows_ = 0;                              // rows the operations work on
  std::vector<float> cos_, sin_;                    // (rows, head_dim), see Kernels::rope
  std::vector<const BatchSequence*> row_sequence_;  // (rows)
};

void CpuBackend::add_low_rank(Tensor x, std::span<const NumberedProduct> products) {
  for (const auto& [adapter, rows] : adapted_rows_) {
    LowRankProduct changes[CpuLowRank::kMostProducts];
    size_t n = 0;
    for (const NumberedProduct& product : products)
      if (const LowRank& delta = adapter->product(product.number)) changes[n++] = {&delta, product.out};
    if (n > 0) low_rank_.run(x, rows, {changes, n});
  }
}

uint64_t CpuBackend::take_weights(uint64_t bytes) {
  if (used_ + bytes > weights().size())
    throw Error(ErrorCode::kInternal, "reserve_weights was given " + std::to_string(weights().size()) +
                                          " bytes, at least " + std::to_string(used_ + bytes) +
                                          " are needed");
  used_ += bytes;
  return used_ - bytes;
}

Matrix CpuBackend::load_matrix(const MatrixSource& source) {
  const uint64_t stride = panel_bytes(source.type, source.cols),
                 row = row_bytes(source.type, uint64_t(source.cols));
  const int64_t panels = panel_count(source.rows);
  const uint64_t at = take_weights(matrix_bytes(source.type, source.rows, source.cols));
  if (is_filled()) return {source.type, source.rows, source.cols, filled_.data() + at};
  std::byte* data = weights_.data() + at;
  pool_.share_throwing(panels, 1, [&](int64_t panel, int64_t) {
    const int64_t first = panel * kPanelRows, n = std::min<int64_t>(kPanelRows, source.rows - first);
    thread_local std::vector<std::byte> rows;
    rows.resize(size_t(n) * row);
    source.read_rows(first, n, rows.data());
    pack_panel(source.type, rows.data(), int(n), source.cols, data + uint64_t(panel) * stride);
  });
  return {source.type, source.rows, source.cols, data};
}

Matrix CpuBackend::load_table(const MatrixSource& source) {
  const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
  const uint64_t at = take_weights(table_bytes(source.type, source.rows, source.cols));
  if (is_filled()) return {source.type, source.rows, source.cols, filled_.data() + at};
  std::byte* data = weights_.data() + at;
  pool_.share_throwing(source.rows, 256, [&](int64_t begin, int64_t end) {
    source.read_rows(begin, end - begin, data + uint64_t(begin) * row);
  });
  return {source.type, source.rows, source.cols, data};
}

void CpuBackend::begin(const Batch& batch) {
  batch_ = &batch;
  n_rows_ = batch.n_rows();
  const size_t head_dim = 2 * inv_freq_.size();
  cos_.resize(size_t(n_rows_) * head_dim);
  sin_.resize(size_t(n_rows_) * head_dim);
  row_sequence_.resize(size_t(n_rows_));
  for (const BatchSequence& sequence : batch.sequences)
    for (int32_t i = 0; i < sequence.n_rows; ++i) row_sequence_[size_t(sequence.first_row + i)] = &sequence;
  for_rows([&](int64_t row) {
    const BatchSequence& sequence = *row_sequence_[size_t(row)];
    const double position = double(sequence.first_position + row - sequence.first_row);
    for (size_t m = 0; m < inv_freq_.size(); ++m) {
      const double angle = position * inv_freq_[m];
      const size_t at = size_t(row) * head_dim + 2 * m;
      cos_[at] = cos_[at + 1] = float(std::cos(angle));
      sin_[at + 1] = float(std::sin(angle));
      sin_[at] = -sin_[at + 1];
    }
  });
}

void CpuBackend::rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) {
  const KvConfig& kv = cache_.config();
  const int32_t head_dim = kv.head_dim;
  for_rows([&](int64_t row) {
    const float* cos = cos_.data() + row * head_dim;
    const float* sin = sin_.data() + row * head_dim;
    for (int64_t i = 0; i < q.cols; i += head_dim)
      kernels_.rope(q.data + row * q.cols + i, cos, sin, head_dim);
    const BatchSequence& sequence = *row_sequence_[size_t(row)];
    const int64_t position = sequence.first_position + row - sequence.first_row;
    const PageId page = sequence.pages[size_t(position / kPagePositions - sequence.first_page)];
    for (int32_t head = 0; head < kv.n_kv_heads; ++head) {
      float* key = k.data + row * k.cols + head * head_dim;
      kernels_.rope(key, cos, sin, head_dim);
      cache_.append(kernels_, page, layer, head, int32_t(position % kPagePositions), key,
                    v.data + row * v.cols + head * head_dim);
    }
  });
}

}  // namespace

std::span<const std::byte> cpu_weights(const Backend& backend) {
  const auto* cpu = dynamic_cast<const CpuBackend*>(&backend);
  if (cpu == nullptr)
    throw Error(ErrorCode::kInternal, "weights on " + std::string(backend.device()) + " are not in memory");
  return cpu->weights();
}

uint64_t cpu_table_bytes(QuantType type, int64_t rows, int64_t cols) {
  return round_up(uint64_t(rows) * row_bytes(type, uint64_t(cols)), 64);
}

uint64_t cpu_matrix_bytes(QuantType type, int64_t rows, int64_t cols) {
  return uint64_t(panel_count(rows)) * panel_bytes(type, cols);
}

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace maestrale
