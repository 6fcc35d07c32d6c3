// SPDX-License-Identifier: Apache-2.0
// What the CPU backend does beside computing: it leaves an operation early when its flag is set.
#include "cpu/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "check.h"

using namespace maestrale;

namespace {

constexpr int64_t kDim = 64;  // two heads of 32, one KV head
constexpr float kUntouched = 123.0f;

class Ones final : public MatrixSource {
 public:
  Ones(int64_t n_rows, int64_t n_cols) : MatrixSource(QuantType::kF32, n_rows, n_cols) {}
  void read_rows(int64_t, int64_t n_rows, std::byte* out) const override {
    const std::vector<float> ones(size_t(n_rows * cols), 1.0f);
    std::memcpy(out, ones.data(), ones.size() * sizeof(float));
  }
};

Tensor filled(Backend& backend, int64_t cols, float value) {
  const Tensor tensor = backend.allocate(1, cols);
  std::fill_n(tensor.data, cols, value);
  return tensor;
}

}  // namespace

TEST("cpu backend: with the interrupt flag set, products and attention return at once") {
  const auto backend = make_cpu_backend({2, "scalar", {}, {}});
  backend->reserve_weights(backend->matrix_bytes(QuantType::kF32, kDim, kDim));
  const Matrix weight = backend->load_matrix(Ones(kDim, kDim));
  backend->configure_kv({.n_layers = 1, .n_kv_heads = 1, .head_dim = 32, .max_pages = 1});
  backend->set_rope(std::vector<double>(16, 1.0));
  const PageId pages[] = {0};
  Batch batch;
  batch.tokens = {1};
  batch.sequences = {{.first_row = 0, .n_rows = 1, .pages = pages}};
  backend->begin(batch);
  const Tensor x = filled(*backend, kDim, 1.0f);
  backend->rope_and_append(0, x, filled(*backend, 32, 1.0f), filled(*backend, 32, 2.0f));

  std::atomic<bool> interrupt{false};
  backend->set_interrupt(&interrupt);
  const Tensor product = backend->allocate(1, kDim), sum = backend->allocate(1, kDim),
               gated = backend->allocate(1, kDim), attention = backend->allocate(1, kDim);
  const auto compute = [&] {
    for (const Tensor& out : {product, sum, gated, attention}) std::fill_n(out.data, kDim, kUntouched);
    const Projection projection[] = {{&weight, product}};
    backend->matmul(x, projection);
    backend->matmul_add(x, weight, sum);
    backend->swiglu(x, weight, weight, gated, {});
    backend->attention(0, x, attention);
  };
  const auto untouched = [](Tensor out) { return std::count(out.data, out.data + kDim, kUntouched) == kDim; };

  compute();
  CHECK(!untouched(product) && !untouched(sum) && !untouched(gated));
  CHECK_EQ(attention.data[0], 2.0f);  // one visible key: its value
  interrupt = true;
  compute();
  CHECK(untouched(product));
  CHECK(untouched(sum));
  CHECK(untouched(gated));
  CHECK(untouched(attention));
  interrupt = false;
  compute();
  CHECK(!untouched(product) && !untouched(sum) && !untouched(gated) && !untouched(attention));
}
