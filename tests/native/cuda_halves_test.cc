// SPDX-License-Identifier: Apache-2.0
// Products with F16 and BF16 on the simulated GPU: against sums in double precision, and the same bits for
// every number of rows. How tensor cores round their sums is theirs, so bits are not compared with a formula.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.h"
#include "cuda_parts.h"
#include "quant/dequantize.h"

using namespace maestrale;
using namespace maestrale::test;
using namespace maestrale::cuda;

namespace {

constexpr int64_t kOutputs = 40, kRows = 70;
// Of a product, relative to the sum of absolute values: what sums of 512 terms in binary32 lose. Without the
// lower halves of activations it would be 1e-4.
constexpr double kBound = 4e-6;

struct Floats {
  Bytes stored;
  std::vector<float> values;
};

// Rows of normal numbers, times `scale` where the row is odd.
Floats random_weights(QuantType type, int64_t n_rows, int64_t cols, float scale, std::mt19937& random) {
  Floats out;
  const std::vector<float> values = random_floats(size_t(n_rows * cols), random);
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i] * (int64_t(i) / cols % 2 == 1 ? scale : 1.0f);
    const uint16_t bits = type == QuantType::kF16 ? f32_to_f16(value) : f32_to_bf16(value);
    out.stored.insert(out.stored.end(), {uint8_t(bits), uint8_t(bits >> 8)});
    out.values.push_back(type == QuantType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits));
  }
  return out;
}

// Each product of x (rows, cols) with a row of w, and what an error of it is measured by: the sum of |x w|.
struct Sum {
  double value = 0, size = 0;
};
Sum product(const float* x, const float* w, int64_t cols) {
  Sum sum;
  for (int64_t i = 0; i < cols; ++i) {
    sum.value += double(x[i]) * w[i];
    sum.size += std::fabs(double(x[i]) * w[i]);
  }
  return sum;
}

void check_products(QuantType type, int64_t cols, float scale) {
  Gpu gpu;
  gpu.products.expect_rows(kRows);
  gpu.products.expect_weights(type, cols);
  gpu.products.prepare();
  gpu.weights.reserve(8 << 20);
  std::mt19937 random(uint32_t(cols) + 9);
  const Floats w = random_weights(type, kOutputs, cols, scale, random);
  const Matrix weight = gpu.weights.load_matrix(StoredRows(type, kOutputs, cols, w.stored));
  std::vector<float> x = random_floats(size_t(kRows * cols), random);
  for (int64_t row = 0; row < kRows; ++row) x[size_t(row * cols + row % cols)] *= row % 3 == 0 ? 1e5f : 1e-6f;
  const std::vector<float> before = random_floats(size_t(kRows * kOutputs), random);
  const Tensor in = gpu.upload(x, cols);

  std::vector<float> all;  // as products of all rows at once
  for (const int n : {int(kRows), 1, 5, 21, 40}) {
    const Tensor out = gpu.upload(std::vector<float>(before.size()), kOutputs),
                 sum = gpu.upload(before, kOutputs);
    const Projection projection{&weight, out};
    gpu.products.matmul(n, in, {&projection, 1});
    gpu.products.matmul_add(n, in, weight, sum);
    const std::vector<float> got = gpu.download<float>(out.data, size_t(n * kOutputs)),
                             added = gpu.download<float>(sum.data, before.size());
    if (all.empty()) all = got;
    CHECK(std::equal(got.begin(), got.end(), all.begin()));
    for (size_t i = 0; i < before.size(); ++i)
      CHECK(added[i] == (i < got.size() ? before[i] + got[i] : before[i]));
  }
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t o = 0; o < kOutputs; ++o) {
      const Sum want = product(x.data() + row * cols, w.values.data() + o * cols, cols);
      CHECK(std::fabs(all[size_t(row * kOutputs + o)] - want.value) <= kBound * want.size);
    }
}

}  // namespace

TEST("cuda: products with F16 and BF16 are those of real numbers, for any number of rows, sm_80") {
  use_simulator("cc=80,seed=6");
  for (const int64_t cols : {512, 96, 544}) check_products(QuantType::kF16, cols, 1e-3f);
  for (const float scale : {1.0f, 1e30f, 1e-30f}) check_products(QuantType::kBF16, 272, scale);
}

TEST("cuda: products with F16 and BF16 are those of real numbers, for any number of rows, sm_75") {
  use_simulator("cc=75,eager,mma=double");
  check_products(QuantType::kF16, 272, 100.0f);
  check_products(QuantType::kBF16, 512, 1e-20f);
}

TEST("cuda: gate and up in F16 and BF16 leave the halves that the next product takes") {
  use_simulator("cc=86,seed=3");
  constexpr int64_t kCols = 256, kHidden = 272;
  for (const QuantType type : {QuantType::kF16, QuantType::kBF16}) {
    Gpu gpu;
    gpu.products.expect_rows(kRows);
    gpu.products.expect_weights(type, kHidden);
    gpu.products.prepare();
    gpu.weights.reserve(8 << 20);
    std::mt19937 random(5);
    std::vector<Floats> w;
    std::vector<Matrix> matrices;
    for (int m = 0; m < 2; ++m) w.push_back(random_weights(type, kHidden, kCols, 0.1f, random));
    w.push_back(random_weights(type, kOutputs, kHidden, 1.0f, random));
    for (int m = 0; m < 2; ++m)
      matrices.push_back(gpu.weights.load_matrix(StoredRows(type, kHidden, kCols, w[size_t(m)].stored)));
    matrices.push_back(gpu.weights.load_matrix(StoredRows(type, kOutputs, kHidden, w[2].stored)));
    const std::vector<float> x = random_floats(size_t(kRows * kCols), random);
    const Tensor in = gpu.upload(x, kCols);
    for (const int n : {1, 40, int(kRows)}) {
      const Tensor gated = gpu.upload(std::vector<float>(size_t(kRows * kHidden)), kHidden);
      const Projection down{&matrices[2], gpu.upload(std::vector<float>(size_t(kRows * kOutputs)), kOutputs)};
      gpu.products.swiglu(n, in, matrices[0], matrices[1], gated, {});
      gpu.products.matmul(n, gated, {&down, 1});
      const std::vector<float> left = gpu.download<float>(down.out.data, size_t(n * kOutputs));
      gpu.products.forget(gated);  // now from memory
      gpu.products.matmul(n, gated, {&down, 1});
      CHECK(left == gpu.download<float>(down.out.data, size_t(n * kOutputs)));
      const std::vector<float> got = gpu.download<float>(gated.data, size_t(n * kHidden));
      for (int64_t row = 0; row < n; ++row)
        for (int64_t o = 0; o < kHidden; ++o) {
          const Sum gate = product(x.data() + row * kCols, w[0].values.data() + o * kCols, kCols),
                    up = product(x.data() + row * kCols, w[1].values.data() + o * kCols, kCols);
          const double want = gate.value / (1 + std::exp(-gate.value)) * up.value;
          CHECK(std::fabs(got[size_t(row * kHidden + o)] - want) <= kBound * gate.size * up.size);
        }
    }
  }
}
