// SPDX-License-Identifier: Apache-2.0
// Weights and products of the CUDA back end on the simulated GPU, bit for bit against CPU code that follows
// the formulas of cuda/tile_layout.h and cuda/kernels/dot.cuh.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "check.h"
#include "cuda_parts.h"

using namespace maestrale;
using namespace maestrale::test;
using namespace maestrale::cuda;

namespace {

// ---- the oracle ------------------------------------------------------------------------------------
template <class Visitor>
decltype(auto) visit_tile(QuantType type, Visitor&& visit) {
  switch (type) {
    case QuantType::kQ4_0: return visit.template operator()<TileQ4_0, BlockQ4_0>();
    case QuantType::kQ4_1: return visit.template operator()<TileQ4_1, BlockQ4_1>();
    case QuantType::kQ5_0: return visit.template operator()<TileQ5_0, BlockQ5_0>();
    case QuantType::kQ5_1: return visit.template operator()<TileQ5_1, BlockQ5_1>();
    case QuantType::kQ8_0: return visit.template operator()<TileQ8_0, BlockQ8_0>();
    case QuantType::kQ2_K: return visit.template operator()<TileQ2_K, BlockQ2_K>();
    case QuantType::kQ3_K: return visit.template operator()<TileQ3_K, BlockQ3_K>();
    case QuantType::kQ4_K: return visit.template operator()<TileQ4_K, BlockQ4_K>();
    case QuantType::kQ5_K: return visit.template operator()<TileQ5_K, BlockQ5_K>();
    case QuantType::kQ6_K: return visit.template operator()<TileQ6_K, BlockQ6_K>();
    case QuantType::kNF4: return visit.template operator()<TileFourBit, BlockNF4>();
    case QuantType::kFP4: return visit.template operator()<TileFourBit, BlockFP4>();
    case QuantType::kIQ4_NL: return visit.template operator()<TileIQ4_NL, BlockIQ4_NL>();
    default: return visit.template operator()<TileIQ4_XS, BlockIQ4_XS>();
  }
}

template <class Block>
constexpr bool is_four_bit = std::is_same_v<Block, BlockNF4> || std::is_same_v<Block, BlockFP4>;
template <class Block>
constexpr bool is_table =
    is_four_bit<Block> || requires(const Block& block, uint8_t* indices) { unpack_indices(block, indices); };

template <class Block>
Block block_at(const Bytes& rows, int64_t cols, int64_t row, int64_t first_col) {
  Block block;
  const int64_t at = row * cols + first_col;
  std::memcpy(&block, rows.data() + size_t(at / Block::kItems) * sizeof block, sizeof block);
  return block;
}

// The code of row r, column k of a unit.
template <class Tile, class Block>
void put_code(uint8_t* unit, int r, int k, int code) {
  const int t = k / 64, s = k % 64 / 32, l = 4 * (r % 8) + k % 16 / 4, q = r / 8 + 2 * (k % 32 / 16),
            i = k % 4;
  if constexpr (requires { Tile::kCodes; }) {
    unit[Tile::kCodes + 1024 * t + 512 * s + 16 * l + 4 * q + i] = uint8_t(code - 128);
  } else {
    if constexpr (!is_table<Block>) code ^= Block::kOffset;  // of a power of two: two's complement
    if constexpr (requires { Tile::kNibbles; }) {
      uint8_t* word = unit + Tile::kNibbles + 512 * t + 16 * l + 4 * q;
      if (Tile::kSerial)
        word[2 * s + i / 2] |= uint8_t((code & 15) << 4 * (i % 2));
      else
        word[i] |= uint8_t((code & 15) << 4 * s);
      code >>= 4;
    }
    if constexpr (requires { Tile::kCrumbs; }) {
      unit[Tile::kCrumbs + 256 * t + 8 * l + 4 * s + i] |= uint8_t((code & 3) << 2 * q);
      code >>= 2;
    }
    if constexpr (requires { Tile::kBits; })
      unit[Tile::kBits + 128 * t + 4 * l + i] |= uint8_t((code & 1) << (4 * s + q));
  }
}

template <class Tile, class Block>
void put_scales(uint8_t* unit, int r, int b, const Block& block) {
  if constexpr (std::is_same_v<Block, BlockQ4_K> || std::is_same_v<Block, BlockQ5_K>) {
    std::memcpy(unit + Tile::kHead + 16 * r, &block, 16);
  } else if constexpr (std::is_same_v<Block, BlockIQ4_XS>) {
    int16_t scales[8];
    unpack_scales(block, scales);
    uint32_t low = 0, high = 0;
    for (int s = 0; s < 8; ++s) {
      const uint32_t scale = uint32_t(scales[s] + 32);
      low |= (scale & 15) << (8 * (s % 4) + 4 * (s / 4));
      high |= scale >> 4 << (4 * (s / 4) + 8 * (s % 2) + 2 * (s % 4 / 2));
    }
    const uint32_t head[2] = {block.d | high << 16, low};
    std::memcpy(unit + Tile::kHead + 8 * r, head, 8);
  } else if constexpr (std::is_same_v<Block, BlockQ3_K>) {
    for (int w = 0; w < 3; ++w) std::memcpy(unit + Tile::kScales + 64 * w + 4 * r, block.scales + 4 * w, 4);
    std::memcpy(unit + Tile::kD + 2 * r, &block.d, 2);
  } else if constexpr (is_four_bit<Block>) {
    std::memcpy(unit + Tile::kAbsmax + 16 * r + 4 * (b / 2), &block.absmax, 4);
  } else if constexpr (requires { Tile::kScales; }) {
    std::memcpy(unit + Tile::kScales + int(sizeof block.scales) * r, &block.scales, sizeof block.scales);
    constexpr int kHalves = requires { block.dmin; } ? 2 : 1;
    std::memcpy(unit + Tile::kD + 2 * kHalves * r, &block.d, 2 * kHalves);
  } else {
    std::memcpy(unit + Tile::kD + 16 * r + 2 * b, &block.d, 2);
    if constexpr (requires { Tile::kM; }) std::memcpy(unit + Tile::kM + 16 * r + 2 * b, &block.m, 2);
  }
}

Bytes packed(QuantType type, const Bytes& rows, int64_t n_rows, int64_t cols) {
  return visit_tile(type, [&]<class Tile, class Block>() {
    const int64_t stripes = (n_rows + 15) / 16, units = units_of(cols);
    Bytes all(size_t(stripes * units * Tile::kBytes));
    for (int64_t row = 0; row < 16 * stripes; ++row)
      for (int64_t col = 0; col < cols; col += Block::kItems) {
        const Block block = block_at<Block>(rows, cols, std::min(row, n_rows - 1), col);
        uint8_t* unit = all.data() + (row / 16 * units + col / 256) * Tile::kBytes;
        uint8_t codes[Block::kItems];
        if constexpr (is_table<Block> && !is_four_bit<Block>)
          unpack_indices(block, codes);
        else
          unpack_codes(block, codes);
        for (int e = 0; e < Block::kItems; ++e)
          put_code<Tile, Block>(unit, int(row % 16), int(col % 256) + e, codes[e]);
        put_scales<Tile, Block>(unit, int(row % 16), int(col % 256 / 32), block);
      }
    return all;
  });
}

// x in eight bits, a scale for `items` columns.
struct Quantised {
  std::vector<int> q;
  std::vector<float> scale;
};
Quantised quantised(const float* x, int64_t cols, int64_t items, float largest = 127.0f) {
  Quantised out;
  for (int64_t first = 0; first < cols; first += items) {
    const int64_t end = std::min(cols, first + items);
    float top = 0;
    for (int64_t i = first; i < end; ++i) top = std::max(top, std::fabs(x[i]));
    const float factor = top > 1e-30f ? largest / top : 0.0f;
    for (int64_t i = first; i < end; ++i) out.q.push_back(int(std::nearbyint(x[i] * factor)));
    out.scale.push_back(top / largest);
  }
  return out;
}

float product(QuantType type, const Bytes& rows, int64_t row, int64_t cols, const float* x) {
  return visit_tile(type, [&]<class Tile, class Block>() {
    constexpr int kScaled = Block::kItems == 256 ? 256 : 32;  // activations with one scale
    const Quantised a = quantised(x, cols, kScaled, is_four_bit<Block> ? 8191.0f : 127.0f);
    const int64_t units = units_of(cols);
    std::vector<std::pair<float, float>> minima;
    float sum = 0;
    for (int64_t s = 0; s < 8; ++s) {
      float f = 0;
      for (int64_t col = s * units / 8 * 256; col < std::min(cols, (s + 1) * units / 8 * 256);
           col += Block::kItems) {
        const Block block = block_at<Block>(rows, cols, row, col);
        const float d_x = a.scale[size_t(col / kScaled)];
        float d_w = 0;
        if constexpr (!is_four_bit<Block>) d_w = f16_to_f32(block.d);
        uint8_t codes[Block::kItems];
        unpack_codes(block, codes);
        int all = 0;  // sum of q
        if constexpr (is_four_bit<Block>) {
          constexpr bool kIsNf4 = std::is_same_v<Block, BlockNF4>;
          constexpr float kLargest = kIsNf4 ? 4075.0f : 4032.0f;
          for (int first = 0; first < 64; first += 32) {
            int dot = 0;
            for (int e = first; e < first + 32; ++e)
              dot += int(std::round(double((kIsNf4 ? kNf4Table : kFp4Table)[codes[e]]) * kLargest)) *
                     a.q[size_t(col + e)];
            const float d = block.absmax * (1.0f / kLargest);
            f = std::fma(float(dot), d * a.scale[size_t((col + first) / 32)], f);
          }
        } else if constexpr (Block::kItems == 256) {
          constexpr int kSubs = 256 / Block::kSubItems;
          int16_t scales[kSubs], mins[kSubs] = {};
          unpack_scales(block, scales);
          int scaled = 0, mins_dot = 0;
          if constexpr (requires { block.dmin; }) unpack_mins(block, mins);
          for (int e = 0; e < 256; ++e) {
            const int q = a.q[size_t(col + e)];
            scaled += scales[e / Block::kSubItems] * (codes[e] - Block::kOffset) * q;
            mins_dot += mins[e / Block::kSubItems] * q;
          }
          float term = float(scaled) * d_w;
          if constexpr (requires { block.dmin; })
            term = std::fma(float(mins_dot), -f16_to_f32(block.dmin), term);
          f = std::fma(term, d_x, f);
        } else {
          int dot = 0;
          for (int e = 0; e < 32; ++e) {
            dot += (codes[e] - Block::kOffset) * a.q[size_t(col + e)];
            all += a.q[size_t(col + e)];
          }
          f = std::fma(float(dot), d_w * d_x, f);
          if constexpr (requires { block.m; }) {  // after the blocks of a unit
            minima.push_back({float(all), f16_to_f32(block.m) * d_x});
            if ((col + 32) % 256 == 0 || col + 32 == cols)
              for (const auto& [q_sum, m] : std::exchange(minima, {})) f = std::fma(q_sum, m, f);
          }
        }
      }
      sum += f;
    }
    return sum;
  });
}

// ---- the cases --------------------------------------------------------------------------------------
// Columns that fill units of 256, and where the type allows it some that do not.
int64_t test_cols(const QuantTraits& traits) {
  return traits.items_per_block == 256 ? 768 : traits.items_per_block == 64 ? 576 : 544;
}

// Products of 40 outputs, for counts of rows that take every kernel. A product of one row repeats its bits
// whatever the batch, so what the oracle says of a row holds for all.
// With two multiprocessors, or 40 outputs would not be enough for matmul_few.
void check_products(const char* settings) {
  use_simulator(settings);
  Gpu gpu;
  gpu.products.expect_rows(100);
  gpu.products.expect_weights(QuantType::kF16, 1024);
  gpu.products.prepare();
  gpu.weights.reserve(64 << 20);
  for_quantised_types([&](const QuantTraits& traits) {
    std::mt19937 random(3);
    const int64_t cols = test_cols(traits), outputs = 40;
    const Bytes rows = random_rows(traits.type, outputs, cols, random);
    const Matrix weight = gpu.weights.load_matrix(StoredRows(traits.type, outputs, cols, rows));
    const std::vector<float> x = random_floats(size_t(100 * cols), random);
    const std::vector<float> before = random_floats(size_t(100 * outputs), random);
    std::vector<float> want(size_t(100 * outputs));
    for (int64_t r = 0; r < 100; ++r)
      for (int64_t o = 0; o < outputs; ++o)
        want[size_t(r * outputs + o)] = product(traits.type, rows, o, cols, x.data() + r * cols);
    const Tensor in = gpu.upload(x, cols);
    for (const int n : {1, 5, 21, 50, 100}) {
      const Tensor out = gpu.upload(before, outputs);
      gpu.products.matmul_add(n, in, weight, out);
      const std::vector<float> got = gpu.download<float>(out.data, size_t(100 * outputs));
      for (size_t i = 0; i < got.size(); ++i) {
        const float expected = i < size_t(n * outputs) ? before[i] + want[i] : before[i];
        if (got[i] != expected)
          fail(__FILE__, __LINE__,
               std::string(traits.name) + ", " + std::to_string(n) + " rows, element " + std::to_string(i) +
                   ": " + std::to_string(got[i]) + " != " + std::to_string(expected));
      }
    }
  });
}

}  // namespace

TEST("cuda: repacked weights are the layout's formulas byte for byte, in as many bytes as the file has") {
  use_simulator("cc=80");
  Gpu gpu;
  gpu.weights.reserve(64 << 20);
  for_quantised_types([&](const QuantTraits& traits) {
    std::mt19937 random(traits.bytes_per_block);
    for (const int64_t n_rows : {16, 37}) {
      const int64_t cols = test_cols(traits);
      const Bytes rows = random_rows(traits.type, n_rows, cols, random);
      const Matrix weight = gpu.weights.load_matrix(StoredRows(traits.type, n_rows, cols, rows));
      const Bytes want = packed(traits.type, rows, n_rows, cols);
      const Bytes got = gpu.download<uint8_t>(weight.data, want.size());
      for (size_t i = 0; i < want.size(); ++i)
        if (got[i] != want[i])
          fail(__FILE__, __LINE__, std::string(traits.name) + ": byte " + std::to_string(i));
    }
    CHECK_EQ(WeightMemory::matrix_bytes(traits.type, 4096, 14336), 4096 * row_bytes(traits.type, 14336));
  });
}

TEST("cuda: products have the bits of the formulas for every type and number of rows, sm_80") {
  check_products("cc=80,async=random,sms=2");
}

TEST("cuda: products have the bits of the formulas for every type and number of rows, sm_75") {
  check_products("cc=75,seed=3,sms=2");
}

TEST("cuda: gate and up in one kernel, several matrices in one launch, and a norm before them") {
  use_simulator("cc=86,seed=2,sms=2");  // which matmul_few fills
  Gpu gpu;
  gpu.products.expect_rows(70);
  gpu.products.expect_weights(QuantType::kF16, 1024);
  gpu.products.prepare();
  gpu.weights.reserve(64 << 20);
  std::mt19937 random(11);
  constexpr int64_t cols = 512, kOutputs = 512;
  const Bytes down_rows = random_rows(QuantType::kQ6_K, 40, kOutputs, random);
  const Matrix w_down = gpu.weights.load_matrix(StoredRows(QuantType::kQ6_K, 40, kOutputs, down_rows));
  const QuantType types[] = {QuantType::kQ4_K, QuantType::kQ6_K, QuantType::kQ4_K, QuantType::kQ8_0};
  std::vector<Bytes> rows;
  std::vector<Matrix> weights;
  for (size_t m = 0; m < 4; ++m) rows.push_back(random_rows(types[m], kOutputs, cols, random));
  for (size_t m = 0; m < 4; ++m)
    weights.push_back(gpu.weights.load_matrix(StoredRows(types[m], kOutputs, cols, rows[m])));
  const std::vector<float> x = random_floats(size_t(70 * cols), random), scale = random_floats(512, random);
  const Tensor in = gpu.upload(x, cols), norm = gpu.upload(scale, cols);
  for (const int n : {1, 3, 40, 70}) {
    const std::vector<float> zeros(size_t(70 * 512));
    const Tensor h = gpu.upload(zeros, cols), gated = gpu.upload(zeros, kOutputs);
    const Projection down{&w_down, gpu.upload(zeros, 40)};
    std::vector<Tensor> outs;
    std::vector<Projection> projections;
    for (size_t m = 0; m < 4; ++m) {
      outs.push_back(gpu.upload(zeros, kOutputs));
      projections.push_back({&weights[m], outs.back()});
    }
    gpu.products.rms_norm(n, in, norm, 1e-5f, h);
    gpu.products.matmul(n, h, projections);
    gpu.products.swiglu(n, h, weights[0], weights[2], gated, {});
    // The product of what the gate left takes the records that it left too.
    gpu.products.matmul(n, gated, {&down, 1});
    const std::vector<float> left = gpu.download<float>(down.out.data, size_t(n * 40));
    gpu.products.forget(gated);
    gpu.products.matmul(n, gated, {&down, 1});
    CHECK(left == gpu.download<float>(down.out.data, size_t(n * 40)));
    gpu.products.settle(n, h);
    const std::vector<float> settled = gpu.download<float>(h.data, size_t(n * cols));
    for (int64_t r = 0; r < n; ++r) {
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) squares += double(x[size_t(r * cols + i)]) * x[size_t(r * cols + i)];
      std::vector<float> y;
      for (int64_t i = 0; i < cols; ++i) {
        y.push_back(
            float(x[size_t(r * cols + i)] / std::sqrt(squares / double(cols) + 1e-5) * scale[size_t(i)]));
        CHECK(std::fabs(settled[size_t(r * cols + i)] - y.back()) < 1e-5);
      }
      double error = 0, power = 0, gate_error = 0, gate_power = 0;
      const std::vector<float> gate = gpu.download<float>(gated.data, size_t(n * kOutputs));
      for (size_t m = 0; m < 4; ++m) {
        const std::vector<float> got = gpu.download<float>(outs[m].data, size_t(n * kOutputs));
        for (int64_t o = 0; o < kOutputs; ++o) {
          // A norm that rounds otherwise moves few codes by one.
          const double want = product(types[m], rows[m], o, cols, y.data());
          error += std::pow(want - got[size_t(r * kOutputs + o)], 2);
          power += want * want;
        }
      }
      for (int64_t o = 0; o < kOutputs; ++o) {
        const double g = product(types[0], rows[0], o, cols, y.data());
        const double want = g / (1 + std::exp(-g)) * product(types[2], rows[2], o, cols, y.data());
        gate_error += std::pow(want - gate[size_t(r * kOutputs + o)], 2);
        gate_power += want * want;
      }
      CHECK(error < 1e-6 * power);
      CHECK(gate_error < 1e-6 * gate_power);
    }
  }
}
