// SPDX-License-Identifier: Apache-2.0
// The kernels of LoRA adapters on the simulated GPU against real numbers: types, ranks, norms, factors, and
// rows of several adapters in one launch.
#include <cmath>

#include "check.h"
#include "cuda/adapter_memory.h"
#include "cuda/low_rank.h"
#include "cuda_parts.h"
#include "quant/quantize.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr int64_t kRows = 21, kCols = 1100;  // a block takes 1024 columns at a time

struct Factors {
  std::vector<float> a, b, factor;  // (rank, cols), (features, rank), (features)
  int64_t rank = 0;
  float scaling = 0;
};

// Values that `type` holds, as they are stored with `cols` columns, the last ones zeros.
Bytes stored(QuantType type, std::vector<float>& values, int64_t rows, int64_t cols) {
  const int64_t given = int64_t(values.size()) / rows;
  Bytes bytes(size_t(rows) * row_bytes(type, uint64_t(cols)));
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> row(values.begin() + r * given, values.begin() + (r + 1) * given);
    row.resize(size_t(cols));
    quantize_row(type, row.data(), cols,
                 reinterpret_cast<std::byte*>(bytes.data()) + uint64_t(r) * row_bytes(type, uint64_t(cols)));
    for (int64_t c = 0; c < given; ++c) {
      float& value = values[size_t(r * given + c)];
      if (type == QuantType::kF16) value = f16_to_f32(f32_to_f16(value));
      if (type == QuantType::kBF16) value = bf16_to_f32(f32_to_bf16(value));
    }
  }
  return bytes;
}

// An adapter of some of the products; number 5 has none.
struct TestAdapter {
  std::unique_ptr<AdapterMemory> memory;
  std::vector<Factors> products{6};
};

TestAdapter make_adapter(Gpu& gpu, QuantType type, int64_t rank, const std::vector<int64_t>& features,
                         bool with_factor, std::mt19937& random) {
  TestAdapter adapter;
  adapter.memory = std::make_unique<AdapterMemory>(gpu.device, gpu.kernels, kRows, uint64_t{4} << 20);
  std::vector<LowRank> products(6);
  for (size_t p = 0; p < features.size(); ++p) {
    if (features[p] == 0) continue;
    Factors& f = adapter.products[p];
    f = {random_floats(size_t(rank * kCols), random),
         random_floats(size_t(features[p] * rank), random),
         {},
         rank,
         0.25f + 0.5f * float(p)};
    LowRank& product = products[p];
    product.scaling = f.scaling;
    const int64_t padded = ceil_div(rank, kRankStep) * kRankStep;
    const Bytes a = stored(type, f.a, rank, kCols), b = stored(type, f.b, features[p], padded);
    product.lora_a = adapter.memory->load_lora_a(StoredRows(type, rank, kCols, a));
    product.lora_b = adapter.memory->load_lora_b(StoredRows(type, features[p], padded, b));
    if (with_factor) {
      f.factor = random_floats(size_t(features[p]), random);
      product.factor = adapter.memory->load_vector(f.factor);
    }
  }
  adapter.memory->set_products(products);
  return adapter;
}

// One row through one product, and what its error is measured by.
std::pair<double, double> expected(const Factors& f, const std::vector<double>& x, double before, int64_t o) {
  double sum = before, size = std::fabs(before);
  for (int64_t k = 0; k < f.rank; ++k) {
    double down = 0, down_size = 0;
    for (int64_t c = 0; c < kCols; ++c) {
      down += x[size_t(c)] * f.a[size_t(k * kCols + c)];
      down_size += std::fabs(x[size_t(c)] * f.a[size_t(k * kCols + c)]);
    }
    const double b = double(f.scaling) * f.b[size_t(o * f.rank + k)];
    sum += down * b;
    size += down_size * std::fabs(b);
  }
  const double factor = f.factor.empty() ? 1.0 : double(f.factor[size_t(o)]);
  return {sum * factor, size * std::fabs(factor)};
}

// Rows 2 .. 11 have the first adapter, 12 the second, 15 .. 20 the third, the others none.
void check_low_rank(bool with_norm) {
  Gpu gpu;
  std::mt19937 random(3);
  const std::vector<int64_t> features = {200, 40, 96};
  const TestAdapter adapters[] = {
      make_adapter(gpu, QuantType::kF32, 3, {200, 0, 96}, false, random),
      make_adapter(gpu, QuantType::kF16, 100, features, false, random),
      make_adapter(gpu, QuantType::kBF16, 32, features, true, random),
  };
  const AdapterRows groups[] = {{adapters[0].memory.get(), {2, 10}},
                                {adapters[1].memory.get(), {12, 1}},
                                {adapters[2].memory.get(), {15, 6}}};
  const std::vector<float> x = random_floats(size_t(kRows * kCols), random),
                           weight = random_floats(size_t(kCols), random);
  const Tensor in = gpu.upload(x, kCols);
  const Norm norm{in, gpu.upload(weight, kCols), {}, 1e-5f};
  std::vector<std::vector<float>> before;
  for (const int64_t n : features) before.push_back(random_floats(size_t(kRows * n), random));
  const auto run = [&](std::span<const AdapterRows> some, bool decodes, auto add) {
    LowRankProducts products(gpu.device, gpu.kernels);
    Step step(gpu.device);
    step.n_rows = kRows;
    step.decodes = decodes;
    std::vector<NumberedProduct> numbered;
    for (size_t p = 0; p < 3; ++p) numbered.push_back({p, gpu.upload(before[p], features[p])});
    products.set_adapters(step, some);
    add(products, numbered);
    std::vector<std::vector<float>> got;
    for (size_t p = 0; p < 3; ++p) got.push_back(gpu.download<float>(numbered[p].out.data, before[p].size()));
    return got;
  };
  const Norm* before_x = with_norm ? &norm : nullptr;
  const auto store = [&](LowRankProducts& products, std::span<const NumberedProduct> numbered) {
    products.add(in, before_x, numbered, Epilogue::kStore);
  };
  const auto got = run(groups, false, store);
  const auto alone =
      run({&groups[1], 1}, true, store);  // in another place of the list, beside empty segments

  // What becomes of the outputs of all rows, with the same bits.
  const std::vector<float> residual = random_floats(before[2].size(), random);
  run(groups, true, [&](LowRankProducts& products, std::span<const NumberedProduct> numbered) {
    const Tensor target = gpu.upload(residual, features[2]);
    products.add(in, before_x, numbered.subspan(2, 1), Epilogue::kAdd, target);
    const std::vector<float> sums = gpu.download<float>(target.data, residual.size());
    for (size_t i = 0; i < sums.size(); ++i) CHECK(sums[i] == residual[i] + got[2][i]);
  });
  run(groups, false, [&](LowRankProducts& products, std::vector<NumberedProduct> numbered) {
    numbered[1] = {1, gpu.upload(before[1], features[1])};
    const NumberedProduct both[] = {{1, numbered[1].out}, {5, gpu.upload(before[1], features[1])}};
    products.add(in, before_x, both, Epilogue::kSwiGlu, numbered[1].out);
    const std::vector<float> out = gpu.download<float>(numbered[1].out.data, before[1].size());
    for (size_t i = 0; i < out.size(); ++i) {
      const double gate = got[1][i], want = gate / (1 + std::exp(-gate)) * before[1][i];
      CHECK(std::fabs(out[i] - want) <= 1e-6 * (1e-3 + std::fabs(want)));
    }
  });
  for (int64_t r = 0; r < kRows; ++r) {
    std::vector<double> row(x.begin() + r * kCols, x.begin() + (r + 1) * kCols);
    double squares = 0;
    for (const double v : row) squares += v * v;
    if (with_norm)
      for (size_t c = 0; c < row.size(); ++c) row[c] *= weight[c] / std::sqrt(squares / kCols + 1e-5);
    const TestAdapter* adapter = nullptr;
    for (size_t g = 0; g < 3; ++g)
      if (r >= groups[g].rows.first && r < groups[g].rows.first + groups[g].rows.count)
        adapter = &adapters[g];
    for (size_t p = 0; p < 3; ++p)
      for (int64_t o = 0; o < features[p]; ++o) {
        const size_t at = size_t(r * features[p] + o);
        if (adapter == nullptr || adapter->products[p].rank == 0) {
          CHECK(got[p][at] == before[p][at]);
          continue;
        }
        const auto [want, size] = expected(adapter->products[p], row, before[p][at], o);
        CHECK(std::fabs(got[p][at] - want) <= 1e-6 * size);
        if (adapter == &adapters[1]) CHECK(got[p][at] == alone[p][at]);
        if (adapter != &adapters[1]) CHECK(alone[p][at] == before[p][at]);
      }
  }
}

}  // namespace

TEST("cuda: adapters of any type and rank add what real numbers say, to their own rows only, sm_80") {
  use_simulator("cc=80,seed=4");
  check_low_rank(false);
}

TEST("cuda: adapters take a norm that is still to be computed, sm_75") {
  use_simulator("cc=75,seed=5");
  check_low_rank(true);
}

TEST("cuda: rows of lora_b lie in pieces, also when they are loaded part by part") {
  use_simulator("cc=80");
  Gpu gpu;
  constexpr int64_t kFeatures = 70000, kRank = 48;  // 6.7 MB, more than is copied at once
  Bytes rows(size_t(kFeatures * kRank * 2));
  std::mt19937 random(7);
  for (uint8_t& byte : rows) byte = uint8_t(random());
  gpu.weights.reserve(rows.size() + 256);
  const Matrix matrix = gpu.weights.load_pieces(StoredRows(QuantType::kF16, kFeatures, kRank, rows));
  Bytes want;
  for (size_t piece = 0; piece < kRank * 2 / kPieceBytes; ++piece)
    for (size_t row = 0; row < kFeatures; ++row) {
      const auto from = rows.begin() + ptrdiff_t(row * kRank * 2 + piece * kPieceBytes);
      want.insert(want.end(), from, from + kPieceBytes);
    }
  CHECK(gpu.download<uint8_t>(matrix.data, want.size()) == want);
}
