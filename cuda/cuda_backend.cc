// SPDX-License-Identifier: Apache-2.0
// Everything runs in order on one stream; only read() and a second upload within a step wait for it.
#include "cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "cuda/kernels.h"

namespace maestrale {
namespace {

using cuda::DeviceBuffer;
using cuda::DevicePointer;
using cuda::PinnedBuffer;

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kUploadBytes = uint64_t{4} << 20;

uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }
DevicePointer address(const void* p) { return DevicePointer(reinterpret_cast<uintptr_t>(p)); }
DevicePointer address(Tensor t) { return address(t.data); }

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(int ordinal)
      : device_(ordinal), module_(device_), kernels_(module_), name_("cuda:" + std::to_string(ordinal)) {}
  // The buffers that follow belong to this context.
  ~CudaBackend() override {
    cuda::driver().cuCtxSetCurrent(nullptr);
    try {
      device_.make_current();
      device_.synchronize();
    } catch (const Error&) {  // of a failed device; its requests have had the error
    }
  }

  std::string_view device() const override { return name_; }
  std::string_view isa() const override { return device_.capability() >= 80 ? "sm_80" : "sm_75"; }
  int32_t threads() const override { return 1; }
  uint64_t free_memory() const { return device_.free_memory(); }

  // ---- weights: stored rows as they are ----
  uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return aligned(uint64_t(rows) * row_bytes(type, uint64_t(cols)));
  }
  uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return matrix_bytes(type, rows, cols);
  }
  void reserve_weights(uint64_t bytes) override {
    weights_ = DeviceBuffer(device_, bytes, "weights");
    used_ = 0;
  }
  Matrix load_matrix(const MatrixSource& source) override;
  Matrix load_table(const MatrixSource& source) override { return load_matrix(source); }
  Tensor load_vector(std::span<const float> values) override {
    const Tensor tensor = allocate(1, int64_t(values.size()));
    upload(address(tensor), std::as_bytes(values));
    return tensor;
  }

  // ---- memory ----
  Tensor allocate(int64_t rows, int64_t cols) override {
    buffers_.emplace_back(device_, uint64_t(rows) * uint64_t(cols) * sizeof(float), "activations");
    return {reinterpret_cast<float*>(uintptr_t(buffers_.back().address())), cols};
  }
  void configure_kv(const KvConfig& config) override {
    require_kv(config);
    kv_ = config;
    cache_ = DeviceBuffer(device_, kv_page_bytes(config) * uint64_t(config.max_pages), "KV cache");
  }
  uint64_t kv_page_bytes(const KvConfig& config) const override {
    return uint64_t(config.n_layers) * uint64_t(head_elements(config)) * uint64_t(config.n_kv_heads) * 2;
  }
  void set_interrupt(const std::atomic<bool>* flag) override { interrupt_ = flag; }
  void set_rope(std::span<const double> inv_freq) override {
    inv_freq_.assign(inv_freq.begin(), inv_freq.end());
  }

  // ---- operations ----
  void begin(const Batch& batch) override;
  void embed(const Matrix& table, Tensor out) override {
    if (interrupted()) return;
    const int64_t chunks = ceil_div(table.cols, 32);
    kernels_.embed[cuda::type_index(table.type)]({n_rows_, ceil_div(chunks, 8), 256}, address(table.data),
                                                 tokens_, address(out), int(table.cols), stride(table));
  }
  void rms_norm(Tensor x, Tensor weight, float eps, Tensor out) override {
    if (interrupted()) return;
    kernels_.rms_norm({n_rows_, 1, 256}, address(x), address(weight), address(out), int(x.cols), eps);
  }
  void matmul(Tensor x, std::span<const Projection> projections) override {
    for (const Projection& p : projections) multiply(x, *p.weight, p.out, false);
  }
  void matmul_add(Tensor x, const Matrix& weight, Tensor residual) override {
    multiply(x, weight, residual, true);
  }
  void swiglu(Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out) override;
  void rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) override;
  void attention(int32_t layer, Tensor q, Tensor out) override;
  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override;
  std::span<const float> read(Tensor x, int64_t n_rows) override;

 private:
  // Elements of one KV head of one layer in a page: keys, then values.
  static int64_t head_elements(const KvConfig& kv) { return 2 * kPagePositions * kv.head_dim; }
  static int64_t stride(const Matrix& m) { return int64_t(row_bytes(m.type, uint64_t(m.cols))); }
  static void require_kv(const KvConfig& config);
  bool interrupted() const { return interrupt_ != nullptr && interrupt_->load(std::memory_order_relaxed); }
  void multiply(Tensor x, const Matrix& weight, Tensor out, bool add);
  // Copies to the device and waits.
  void upload(DevicePointer to, std::span<const std::byte> from);
  // Pinned memory for `bytes` that the stream no longer reads.
  std::byte* stage(uint64_t bytes);
  void grow(DeviceBuffer& buffer, uint64_t bytes, const char* purpose) {
    if (buffer.bytes() >= bytes) return;
    device_.synchronize();
    buffer = DeviceBuffer();
    buffer = DeviceBuffer(device_, bytes + bytes / 2, purpose);
  }

  cuda::Device device_;
  cuda::KernelModule module_;
  cuda::Kernels kernels_;
  std::string name_;
  const std::atomic<bool>* interrupt_ = nullptr;
  KvConfig kv_;
  std::vector<double> inv_freq_;  // (head_dim / 2)

  DeviceBuffer weights_, cache_, batch_, indices_, up_;
  uint64_t used_ = 0;  // bytes of weights_ handed out
  std::vector<DeviceBuffer> buffers_;
  PinnedBuffer staging_, result_;
  bool staged_ = false;  // the stream may still read staging_

  int32_t n_rows_ = 0;  // rows the operations work on
  DevicePointer tokens_ = 0, angles_ = 0, slots_ = 0, queries_ = 0, pages_ = 0;  // parts of batch_
};

void CudaBackend::require_kv(const KvConfig& config) {
  if (config.type == KvType::kQ8_0)
    throw Error(ErrorCode::kDevice, "kvCacheType 'q8_0' is not available on CUDA; use 'f16' or 'bf16'");
  if (config.head_dim > 256 || config.head_dim % 2 != 0)
    throw Error(ErrorCode::kModelUnsupported, "the head dimension is " + std::to_string(config.head_dim) +
                                                  ", on CUDA it must be even and at most 256");
}

std::byte* CudaBackend::stage(uint64_t bytes) {
  if (staged_) device_.synchronize();
  staged_ = true;
  if (staging_.bytes() < bytes) staging_ = PinnedBuffer(std::max(bytes + bytes / 2, kUploadBytes));
  return staging_.data();
}

void CudaBackend::upload(DevicePointer to, std::span<const std::byte> from) {
  device_.make_current();
  std::memcpy(stage(from.size()), from.data(), from.size());
  MAESTRALE_CU(cuMemcpyHtoDAsync_v2, to, staging_.data(), from.size(), device_.stream());
  device_.synchronize();
  staged_ = false;
}

Matrix CudaBackend::load_matrix(const MatrixSource& source) {
  const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
  const uint64_t bytes = matrix_bytes(source.type, source.rows, source.cols);
  if (used_ + bytes > weights_.bytes())
    throw Error(ErrorCode::kInternal, "reserve_weights was given " + std::to_string(weights_.bytes()) +
                                          " bytes, at least " + std::to_string(used_ + bytes) +
                                          " are needed");
  const DevicePointer at = weights_.address() + used_;
  device_.make_current();
  const int64_t rows_at_once = std::max<int64_t>(1, int64_t(kUploadBytes / row));
  for (int64_t first = 0; first < source.rows; first += rows_at_once) {
    const int64_t n = std::min(rows_at_once, source.rows - first);
    std::byte* staging = stage(uint64_t(n) * row);
    source.read_rows(first, n, staging);
    MAESTRALE_CU(cuMemcpyHtoDAsync_v2, at + uint64_t(first) * row, staging, size_t(uint64_t(n) * row),
                 device_.stream());
  }
  used_ += bytes;
  return {source.type, source.rows, source.cols, reinterpret_cast<const std::byte*>(uintptr_t(at))};
}

void CudaBackend::begin(const Batch& batch) {
  device_.make_current();
  n_rows_ = batch.n_rows();
  const uint64_t rows = uint64_t(n_rows_), pairs = inv_freq_.size();
  uint64_t n_pages = 0;
  for (const BatchSequence& sequence : batch.sequences) n_pages += sequence.pages.size();
  // One block of memory, copied at once: the parts with the widest elements first.
  const uint64_t slots_at = rows * sizeof(cuda::Query), angles_at = slots_at + rows * sizeof(int64_t),
                 tokens_at = angles_at + rows * pairs * 2 * sizeof(float),
                 pages_at = tokens_at + rows * sizeof(int32_t), bytes = pages_at + n_pages * sizeof(PageId);
  std::byte* memory = stage(bytes);
  auto* queries = reinterpret_cast<cuda::Query*>(memory);
  auto* slots = reinterpret_cast<int64_t*>(memory + slots_at);
  auto* angles = reinterpret_cast<float*>(memory + angles_at);
  std::copy(batch.tokens.begin(), batch.tokens.end(), reinterpret_cast<int32_t*>(memory + tokens_at));
  auto* pages = reinterpret_cast<PageId*>(memory + pages_at);

  const int64_t page_elements = int64_t(kv_page_bytes(kv_) / 2);
  int64_t first_of_table = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    for (int32_t i = 0; i < sequence.n_rows; ++i) {
      const size_t row = size_t(sequence.first_row + i);
      const int64_t position = sequence.first_position + i;
      const int64_t window = kv_.sliding_window > 0 ? kv_.sliding_window : position + 1;
      queries[row] = {std::max<int64_t>(0, position - window + 1), position, sequence.first_page,
                      first_of_table};
      const PageId page = sequence.pages[size_t(position / kPagePositions - sequence.first_page)];
      slots[row] = page * page_elements + position % kPagePositions * kv_.head_dim;
      for (size_t m = 0; m < pairs; ++m) {
        const double angle = double(position) * inv_freq_[m];
        angles[2 * (row * pairs + m)] = float(std::cos(angle));
        angles[2 * (row * pairs + m) + 1] = float(std::sin(angle));
      }
    }
    pages = std::copy(sequence.pages.begin(), sequence.pages.end(), pages);
    first_of_table += int64_t(sequence.pages.size());
  }
  grow(batch_, bytes, "batch");
  MAESTRALE_CU(cuMemcpyHtoDAsync_v2, batch_.address(), memory, size_t(bytes), device_.stream());
  queries_ = batch_.address();
  slots_ = queries_ + slots_at;
  angles_ = queries_ + angles_at;
  tokens_ = queries_ + tokens_at;
  pages_ = queries_ + pages_at;
}

void CudaBackend::multiply(Tensor x, const Matrix& weight, Tensor out, bool add) {
  if (interrupted()) return;
  kernels_.matmul[cuda::type_index(weight.type)](
      {ceil_div(weight.rows, 4), ceil_div(n_rows_, 8), 128}, address(weight.data), address(x), address(out),
      n_rows_, int(weight.cols), int(weight.rows), stride(weight), int(add));
}

void CudaBackend::swiglu(Tensor x, const Matrix& w_gate, const Matrix& w_up, Tensor out) {
  if (interrupted()) return;
  const int64_t n = n_rows_ * out.cols;
  grow(up_, uint64_t(n) * sizeof(float), "activations");
  multiply(x, w_gate, out, false);
  multiply(x, w_up, {reinterpret_cast<float*>(uintptr_t(up_.address())), out.cols}, false);
  if (interrupted()) return;
  kernels_.silu_multiply({ceil_div(n, 256), 1, 256}, address(out), up_.address(), n);
}

void CudaBackend::rope_and_append(int32_t layer, Tensor q, Tensor k, Tensor v) {
  if (interrupted()) return;
  const int heads = int(q.cols) / kv_.head_dim;
  const DevicePointer cache =
      cache_.address() + uint64_t(layer) * uint64_t(kv_.n_kv_heads) * uint64_t(head_elements(kv_)) * 2;
  kernels_.rope_append[size_t(kv_.type)]({n_rows_, heads + kv_.n_kv_heads, kv_.head_dim / 2}, address(q),
                                         address(k), address(v), angles_, slots_, cache, heads,
                                         kv_.n_kv_heads);
}

void CudaBackend::attention(int32_t layer, Tensor q, Tensor out) {
  if (interrupted()) return;
  const int heads = int(q.cols) / kv_.head_dim;
  kernels_.attention[size_t(kv_.type)]({n_rows_, heads, 32}, address(q), address(out), queries_, pages_,
                                       cache_.address(), int64_t(kv_page_bytes(kv_) / 2),
                                       layer * kv_.n_kv_heads * head_elements(kv_), heads / kv_.n_kv_heads,
                                       kv_.head_dim, float(1 / std::sqrt(double(kv_.head_dim))));
}

void CudaBackend::gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) {
  n_rows_ = int32_t(rows.size());
  if (interrupted()) return;
  std::memcpy(stage(rows.size_bytes()), rows.data(), rows.size_bytes());
  grow(indices_, rows.size_bytes(), "batch");
  MAESTRALE_CU(cuMemcpyHtoDAsync_v2, indices_.address(), staging_.data(), rows.size_bytes(),
               device_.stream());
  kernels_.gather_rows({ceil_div(x.cols, 256), 1, 256}, address(x), indices_.address(), address(out), n_rows_,
                       int(x.cols));
}

std::span<const float> CudaBackend::read(Tensor x, int64_t n_rows) {
  const uint64_t n = uint64_t(n_rows * x.cols), bytes = n * sizeof(float);
  if (result_.bytes() < bytes) {
    result_ = PinnedBuffer();
    result_ = PinnedBuffer(bytes);
  }
  MAESTRALE_CU(cuMemcpyDtoHAsync_v2, result_.data(), address(x), size_t(bytes), device_.stream());
  device_.synchronize();
  staged_ = false;
  return {reinterpret_cast<const float*>(result_.data()), size_t(n)};
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
