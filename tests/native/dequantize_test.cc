// SPDX-License-Identifier: Apache-2.0
// Dequantisation against 64 random blocks of every type and their values by gguf-py, bit for bit.
#include "quant/dequantize.h"

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "check.h"
#include "quant/blocks.h"
#include "vectors.h"

using namespace maestrale;

namespace {

constexpr QuantType kBlockTypes[] = {QuantType::kQ4_0, QuantType::kQ4_1,   QuantType::kQ5_0,
                                     QuantType::kQ5_1, QuantType::kQ8_0,   QuantType::kQ2_K,
                                     QuantType::kQ3_K, QuantType::kQ4_K,   QuantType::kQ5_K,
                                     QuantType::kQ6_K, QuantType::kIQ4_NL, QuantType::kIQ4_XS};

std::vector<float> dequantized(QuantType type, const std::byte* row, size_t cols) {
  std::vector<float> out(cols);
  dequantize_row(type, row, int64_t(cols), out.data());
  return out;
}

}  // namespace

TEST("dequantize: every type equals the reference bit for bit") {
  const auto vectors = test::read_vectors("dequantize.vectors.safetensors");
  for (QuantType type : kBlockTypes) {
    const std::string name(quant_traits(type).name);
    const auto& blocks = vectors.at(name + ".blocks");
    const std::vector<float> expected = vectors.at(name + ".values").as<float>();
    CHECK_EQ(blocks.bytes.size(), 64 * size_t(quant_traits(type).bytes_per_block));
    CHECK_EQ(expected.size(), 64 * size_t(quant_traits(type).items_per_block));
    const std::vector<float> actual = dequantized(type, blocks.bytes.data(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      if (std::memcmp(&actual[i], &expected[i], 4) != 0)
        test::fail(__FILE__, __LINE__,
                   name + " element " + std::to_string(i) + ": " + std::to_string(actual[i]) +
                       " instead of " + std::to_string(expected[i]));
  }
}

TEST("dequantize: the row may start at any address") {
  const auto vectors = test::read_vectors("dequantize.vectors.safetensors");
  for (QuantType type : kBlockTypes) {
    const auto& blocks = vectors.at(std::string(quant_traits(type).name) + ".blocks").bytes;
    const size_t cols = 64 * quant_traits(type).items_per_block;
    std::vector<std::byte> shifted(blocks.size() + 1);
    std::copy(blocks.begin(), blocks.end(), shifted.begin() + 1);
    CHECK(dequantized(type, blocks.data(), cols) == dequantized(type, shifted.data() + 1, cols));
  }
}

TEST("dequantize: struct sizes and items agree with the table of types") {
  for (QuantType type : kBlockTypes)
    visit_block(type, [&]<class Block>() {
      CHECK_EQ(sizeof(Block), size_t(quant_traits(type).bytes_per_block));
      CHECK_EQ(uint32_t(Block::kItems), quant_traits(type).items_per_block);
    });
  CHECK_THROWS(visit_block(QuantType::kF16, []<class Block>() {}), ErrorCode::kInternal);
}

TEST("dequantize: floating-point rows") {
  const float values[] = {0.0f, -1.5f, 3.0f, 65504.0f, -0x1p-14f};
  std::byte f16[10], bf16[10];
  for (int i = 0; i < 5; ++i) {
    const uint16_t half = f32_to_f16(values[i]), brain = f32_to_bf16(values[i]);
    std::memcpy(f16 + 2 * i, &half, 2);
    std::memcpy(bf16 + 2 * i, &brain, 2);
  }
  const auto exact = dequantized(QuantType::kF32, reinterpret_cast<const std::byte*>(values), 5);
  const auto from_f16 = dequantized(QuantType::kF16, f16, 5);
  const auto from_bf16 = dequantized(QuantType::kBF16, bf16, 5);
  for (int i = 0; i < 5; ++i) {
    CHECK_EQ(exact[i], values[i]);
    CHECK_EQ(from_f16[i], values[i]);
    CHECK(std::fabs(from_bf16[i] - values[i]) <= std::fabs(values[i]) / 256);
  }
}
