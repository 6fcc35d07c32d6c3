// SPDX-License-Identifier: Apache-2.0
// Everything runs in order on one stream; a step waits for it in read() only.
#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "backend/adapter_ops.h"
#include "base/error.h"
#include "base/integer.h"
#include "cuda/adapter_memory.h"
#include "cuda/attention.h"
#include "cuda/kernels.h"
#include "cuda/kv_cache.h"
#include "cuda/logits.h"
#include "cuda/low_rank.h"
#include "cuda/products.h"
#include "cuda/step.h"
#include "cuda/weight_memory.h"

namespace maestrale {
namespace {

using cuda::DeviceBuffer;
using cuda::DevicePointer;
using cuda::PinnedBuffer;

DevicePointer address(const void* p) { return DevicePointer(reinterpret_cast<uintptr_t>(p)); }
DevicePointer address(Tensor t) { return address(t.data); }

class CudaBackend final : public Backend, private AdapterOps {
 public:
  explicit CudaBackend(int ordinal)
      : device_(ordinal), module_(device_), kernels_(module_), name_("cuda:" + std::to_string(ordinal)) {}
  // Memory goes when no kernel uses it any more.
  ~CudaBackend() override {
    device_.driver().cuCtxSetCurrent(device_.context());
    device_.driver().cuStreamSynchronize(device_.stream());
  }

  std::string_view device() const override { return name_; }
  std::string_view isa() const override { return device_.capability() >= 80 ? "sm_80" : "sm_75"; }
  int32_t threads() const override { return 1; }
  uint64_t free_memory() const { return device_.free_memory(); }

  // ---- weights ----
  uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return cuda::WeightMemory::matrix_bytes(type, rows, cols);
  }
  uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return cuda::WeightMemory::table_bytes(type, rows, cols);
  }
  void reserve_weights(uint64_t bytes) override { weights_.reserve(bytes); }
  Matrix load_matrix(const MatrixSource& source) override {
    products_.expect_weights(source.type, source.cols);
    return weights_.load_matrix(source);
  }
  Matrix load_table(const MatrixSource& source) override { return weights_.load_table(source); }
  // Of a norm, whose output an adapter's own head in F16 may take.
  Tensor load_vector(std::span<const float> values) override {
    products_.expect_weights(QuantType::kF16, int64_t(values.size()));
    const Tensor tensor = allocate(1, int64_t(values.size()));
    weights_.copy(std::as_bytes(values), address(tensor));
    return tensor;
  }

  // ---- memory ----
  Tensor allocate(int64_t rows, int64_t cols) override {
    buffers_.emplace_back(device_, uint64_t(rows) * uint64_t(cols) * sizeof(float), "activations");
    products_.expect_rows(rows);
    max_rows_ = std::max(max_rows_, rows);
    return {reinterpret_cast<float*>(uintptr_t(buffers_.back().address())), cols};
  }
  void configure_kv(const KvConfig& config) override {
    weights_.finish();
    cache_ = cuda::KvCache(device_, config);
    attention_.configure(config);
    products_.prepare();
    logits_.prepare(max_rows_);
  }
  uint64_t kv_page_bytes(const KvConfig& config) const override { return cuda::KvCache::page_bytes(config); }
  uint64_t scratch_bytes(const KvConfig& config, int64_t max_rows, int64_t max_cols) const override {
    // What is sent with a batch: positions, angles, tokens, tiles, rows that are gathered, page tables.
    const uint64_t row =
        sizeof(int64_t) + 4 * uint64_t(config.head_dim) + 2 * sizeof(int32_t) + sizeof(cuda::QueryTile);
    const uint64_t sent = uint64_t(max_rows) * row + uint64_t(config.max_pages) * sizeof(PageId);
    return cuda::Products::scratch_bytes(max_rows, max_cols) + attention_.scratch_bytes(config) +
           cuda::Upload::capacity(sent) + cuda::Logits::device_bytes(max_rows);
  }
  void set_interrupt(const std::atomic<bool>* flag) override { interrupt_ = flag; }
  void set_rope(std::span<const double> inv_freq) override { step_.set_rope(inv_freq); }

  // ---- operations ----
  void begin(const Batch& batch) override {
    device_.make_current();
    step_.begin(batch);
    attention_.begin(batch);
    // Steps of prompts differ from each other and last long enough to be launched as they come.
    if (step_.decodes) device_.launches().record();
  }
  void embed(const Matrix& table, Tensor out) override { embed_rows(table, {0, step_.n_rows}, out); }
  void rms_norm(Tensor x, Tensor weight, float eps, Tensor out) override {
    if (interrupted()) return;
    products_.rms_norm(step_.n_rows, x, weight, eps, out);
  }
  void matmul(Tensor x, std::span<const Projection> projections) override {
    if (interrupted()) return;
    products_.matmul(step_.n_rows, x, projections);
  }
  void matmul_add(Tensor x, const Matrix& weight, Tensor residual) override {
    if (interrupted()) return;
    products_.matmul_add(step_.n_rows, x, weight, residual);
  }
  void swiglu(Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out, Tensor scratch) override {
    if (interrupted()) return;
    products_.swiglu(step_.n_rows, x, w_gate, w_up, out, scratch);
  }
  void rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) override;
  void project_heads(int32_t layer, Tensor x, std::span<const Projection, 3> qkv) override;
  void attention(int32_t layer, Tensor q, Tensor out) override;
  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override;
  std::span<const float> read(Tensor x, int64_t n_rows) override;
  bool draws() const override { return true; }
  std::vector<LogitRow> read_logits(Tensor x, std::span<const RowRequest> requests) override {
    products_.settle(step_.n_rows, x);
    logits_.copy(x, requests);
    wait();
    return logits_.rows();
  }
  std::span<const float> read_logits_row(Tensor x, int64_t i) override { return logits_.row(x, i); }
  void write(std::span<const float> rows, Tensor x) override;

  // ---- adapters ----
  AdapterOps& adapters() override { return *this; }
  std::unique_ptr<AdapterStorage> reserve_adapter(uint64_t bytes) override {
    return std::make_unique<cuda::AdapterMemory>(device_, kernels_, max_rows_, bytes);
  }
  void set_adapters(std::span<const AdapterRows> groups) override { low_rank_.set_adapters(step_, groups); }
  void add_low_rank(Tensor x, std::span<const NumberedProduct> products) override {
    if (interrupted()) return;
    low_rank_.add(x, products_.norm_before(x), products, cuda::Epilogue::kStore);
  }
  void add_low_rank_sum(Tensor x, const NumberedProduct& product, Tensor residual) override {
    if (interrupted()) return;
    low_rank_.add(x, products_.norm_before(x), {&product, 1}, cuda::Epilogue::kAdd, residual);
    products_.forget(residual);
  }
  void add_low_rank_gate(Tensor x, const NumberedProduct& gate, const NumberedProduct& up,
                         Tensor out) override {
    if (interrupted()) return;
    const NumberedProduct both[] = {gate, up};
    low_rank_.add(x, products_.norm_before(x), both, cuda::Epilogue::kSwiGlu, out);
    products_.forget(out);
  }
  void embed_rows(const Matrix& table, RowRange rows, Tensor out) override;
  void matmul_rows(Tensor x, RowRange rows, const Projection& projection) override {
    if (interrupted()) return;
    products_.matmul_rows(rows, x, projection);
  }

 private:
  cuda::HeadArgs head_args(int32_t layer) const;
  void wait();
  bool interrupted() const { return interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed); }

  cuda::Device device_;
  cuda::KernelModule module_;
  cuda::Kernels kernels_;
  std::string name_;
  const std::atomic<bool>* interrupt_ = nullptr;

  cuda::WeightMemory weights_{device_, kernels_, device_.launches()};
  cuda::Products products_{device_, kernels_};
  std::vector<DeviceBuffer> buffers_;
  cuda::KvCache cache_;
  cuda::Step step_{device_};
  cuda::Attention attention_{device_, kernels_};
  cuda::LowRankProducts low_rank_{device_, kernels_};
  cuda::Upload indices_{device_, "batch"};
  cuda::Logits logits_{device_, kernels_};
  int64_t max_rows_ = 0;
  PinnedBuffer result_, input_;
};

void CudaBackend::embed_rows(const Matrix& table, RowRange rows, Tensor out) {
  if (interrupted()) return;
  products_.forget(out);
  const int64_t chunks = ceil_div(table.cols, 32);
  kernels_.embed[cuda::type_index(table.type)](
      {.x = rows.count, .y = ceil_div(chunks, 8), .block = 256}, address(table.data),
      step_.tokens + uint64_t(rows.first) * sizeof(int32_t), address(out.data + rows.first * out.cols),
      int(table.cols), cuda::WeightMemory::row_stride(table));
}

cuda::HeadArgs CudaBackend::head_args(int32_t layer) const {
  const KvConfig& kv = cache_.config();
  return {reinterpret_cast<const float*>(uintptr_t(step_.angles)),
          reinterpret_cast<const long long*>(uintptr_t(step_.slots)),
          reinterpret_cast<unsigned char*>(uintptr_t(cache_.address())),
          cache_.page_stride(),
          cache_.layer_at(layer),
          kv.head_dim,
          cuda::CacheType(kv.type)};
}

void CudaBackend::rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) {
  if (interrupted()) return;
  const KvConfig& kv = cache_.config();
  const int heads = int(q.cols) / kv.head_dim;
  kernels_.rope_append({.x = step_.n_rows, .y = ceil_div(heads + 2 * kv.n_kv_heads, 4), .block = 128},
                       head_args(layer), address(q), address(k), address(v), heads, kv.n_kv_heads);
}

void CudaBackend::project_heads(int32_t layer, Tensor x, std::span<const Projection, 3> qkv) {
  if (interrupted()) return;
  const bool fuses =
      cache_.config().head_dim % cuda::kStripeRows == 0 &&
      std::ranges::all_of(qkv, [](const Projection& p) { return cuda::is_tiled(p.weight->type); });
  if (!fuses) return Backend::project_heads(layer, x, qkv);
  products_.matmul_heads(step_.n_rows, x, qkv, head_args(layer));
}

void CudaBackend::attention(int32_t layer, Tensor q, Tensor out) {
  if (interrupted()) return;
  products_.forget(out);
  attention_.run(cache_, layer, address(q), address(out), int32_t(q.cols) / cache_.config().head_dim);
}

void CudaBackend::gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) {
  products_.settle(step_.n_rows, x);
  products_.forget(out);
  step_.n_rows = int32_t(rows.size());
  if (interrupted()) return;
  std::memcpy(indices_.prepare(rows.size_bytes()), rows.data(), rows.size_bytes());
  const DevicePointer indices = indices_.send(rows.size_bytes());
  kernels_.gather_rows({.x = ceil_div(x.cols, 256), .block = 256}, address(x), indices, address(out),
                       step_.n_rows, int(x.cols));
}

void CudaBackend::wait() {
  device_.synchronize();
  step_.landed();
  attention_.landed();
  low_rank_.landed();
  indices_.landed();
  logits_.landed();
}

std::span<const float> CudaBackend::read(Tensor x, int64_t n_rows) {
  products_.settle(step_.n_rows, x);
  const uint64_t n = uint64_t(n_rows * x.cols), bytes = n * sizeof(float);
  if (result_.bytes() < bytes) {
    result_ = PinnedBuffer();
    result_ = PinnedBuffer(device_, bytes);
  }
  device_.launches().flush();
  MAESTRALE_CU(device_, cuMemcpyDtoHAsync_v2, result_.data(), address(x), size_t(bytes), device_.stream());
  wait();
  return {reinterpret_cast<const float*>(result_.data()), size_t(n)};
}

void CudaBackend::write(std::span<const float> rows, Tensor x) {
  if (interrupted()) return;
  products_.forget(x);
  device_.launches().flush();
  // begin() has waited for the step before, so nothing reads input_ any more.
  if (input_.bytes() < rows.size_bytes()) {
    input_ = PinnedBuffer();
    input_ = PinnedBuffer(device_, rows.size_bytes());
  }
  std::memcpy(input_.data(), rows.data(), rows.size_bytes());
  MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, address(x), input_.data(), rows.size_bytes(), device_.stream());
  if (step_.decodes) device_.launches().record();
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(int ordinal) { return std::make_unique<CudaBackend>(ordinal); }

uint64_t cuda_free_memory(const Backend& backend) {
  const auto* cuda = dynamic_cast<const CudaBackend*>(&backend);
  if (cuda == nullptr)
    throw Error(ErrorCode::kInternal, "the backend of " + std::string(backend.device()) + " has no GPU");
  return cuda->free_memory();
}

}  // namespace maestrale
