// SPDX-License-Identifier: Apache-2.0
// Weights in F32 on the simulated GPU: the bits of CPU code that sums as the kernel says, in one launch for
// all products of an input.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "cuda_parts.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr int64_t kCols = 200, kFeatures[] = {70, 6, 33};
constexpr int kRows = 19;

// The lanes of a warp sum every 32nd column, then they are added in a tree.
float dot(const float* x, const float* w) {
  std::vector<float> lanes(32);
  for (size_t i = 0; i < size_t(kCols); ++i) lanes[i % 32] = std::fma(x[i], w[i], lanes[i % 32]);
  for (size_t n = 16; n > 0; n /= 2)
    for (size_t lane = 0; lane < n; ++lane) lanes[lane] += lanes[lane + n];
  return lanes[0];
}

void check_products(const char* settings) {
  use_simulator(settings);
  Gpu gpu;
  std::mt19937 random(9);
  const std::vector<float> x = random_floats(size_t(kRows * kCols), random);
  const Tensor in = gpu.upload(x, kCols);
  gpu.weights.reserve(1 << 20);
  std::vector<std::vector<float>> weights, before;
  std::vector<Bytes> stored;
  std::vector<Matrix> matrices;
  std::vector<Tensor> outs;
  for (const int64_t features : kFeatures) {
    weights.push_back(random_floats(size_t(features * kCols), random));
    const auto* bytes = reinterpret_cast<const uint8_t*>(weights.back().data());
    stored.emplace_back(bytes, bytes + weights.back().size() * sizeof(float));
    before.push_back(random_floats(size_t(kRows * features), random));
    outs.push_back(gpu.upload(before.back(), features));
  }
  for (size_t m = 0; m < 3; ++m)
    matrices.push_back(gpu.weights.load_matrix(StoredRows(QuantType::kF32, kFeatures[m], kCols, stored[m])));
  const auto check = [&](size_t m, int rows, bool adds) {
    const size_t features = size_t(kFeatures[m]);
    std::vector<float> want = before[m];
    for (size_t row = 0; row < size_t(rows); ++row)
      for (size_t f = 0; f < features; ++f) {
        const float sum = dot(&x[row * size_t(kCols)], &weights[m][f * size_t(kCols)]);
        float& out = want[row * features + f];
        out = adds ? out + sum : sum;
      }
    const std::vector<float> got = gpu.download<float>(outs[m].data, want.size());
    CHECK(got == want);
    before[m] = got;
  };
  for (const int rows : {1, 8, kRows})
    for (size_t n = 1; n <= 3; ++n) {
      std::vector<Projection> products;
      for (size_t m = 0; m < n; ++m) products.push_back({&matrices[m], outs[m]});
      simulator<int()>("ptxsim_reset")();
      gpu.products.matmul(rows, in, products);
      for (size_t m = 0; m < n; ++m) check(m, rows, false);
      CHECK_EQ(counter("matmul_f32", "launches"), 1);
      gpu.products.matmul_add(rows, in, matrices[n - 1], outs[n - 1]);
      check(n - 1, rows, true);
    }
}

}  // namespace

TEST("cuda: products with weights in F32 are one launch with the bits of their definition") {
  check_products("cc=80,seed=2");
  check_products("cc=75,eager");
}
