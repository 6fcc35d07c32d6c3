// SPDX-License-Identifier: Apache-2.0
// Quantisers against blocks that ggml's own quantisers made of the same weights (no importance matrix):
// the error of ours may exceed theirs by half a percent.
#include "quant/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "check.h"
#include "io/gguf.h"
#include "quant/dequantize.h"
#include "vectors.h"

using namespace maestrale;

namespace {

constexpr QuantType kQuantizedTypes[] = {
    QuantType::kQ4_0, QuantType::kQ4_1, QuantType::kQ5_0, QuantType::kQ5_1, QuantType::kQ8_0,
    QuantType::kQ2_K, QuantType::kQ3_K, QuantType::kQ4_K, QuantType::kQ5_K, QuantType::kQ6_K};

std::vector<float> dequantized(QuantType type, const std::byte* row, size_t cols) {
  std::vector<float> out(cols);
  dequantize_row(type, row, int64_t(cols), out.data());
  return out;
}

std::vector<std::byte> quantized(QuantType type, const std::vector<float>& weights) {
  std::vector<std::byte> out(row_bytes(type, weights.size()));
  quantize_row(type, weights.data(), int64_t(weights.size()), out.data());
  return out;
}

// Root mean square error of stored blocks.
double rmse(QuantType type, const std::byte* blocks, const std::vector<float>& weights) {
  const std::vector<float> values = dequantized(type, blocks, weights.size());
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) sum += std::pow(double(values[i]) - double(weights[i]), 2);
  return std::sqrt(sum / double(weights.size()));
}

void check_rmse(const std::string& what, QuantType type, const std::vector<float>& weights,
                const std::byte* reference_blocks) {
  const double reference = rmse(type, reference_blocks, weights);
  const double ours = rmse(type, quantized(type, weights).data(), weights);
  CHECK(reference > 0);
  if (!(ours <= 1.005 * reference))
    test::fail(__FILE__, __LINE__,
               what + " " + std::string(quant_traits(type).name) + ": RMSE " + std::to_string(ours) +
                   ", reference " + std::to_string(reference));
}

}  // namespace

TEST("quantize: error on normal and Laplace weights within 0.5 % of the reference") {
  const auto vectors = test::read_vectors("quantize.vectors.safetensors");
  for (const std::string distribution : {"normal", "laplace"})
    for (QuantType type : kQuantizedTypes)
      check_rmse(distribution, type, vectors.at(distribution + ".weights").as<float>(),
                 vectors.at(distribution + "." + std::string(quant_traits(type).name)).bytes.data());
}

TEST("quantize: error on the matrices of a model within 0.5 % of the reference") {
  const auto source_bytes = test::read_vector_file("models/hd128-bf16.gguf");
  const GgufFile source = GgufFile::parse(source_bytes, source_bytes.size());
  int compared = 0;
  for (const std::string file_type :
       {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k"}) {
    const auto bytes = test::read_vector_file("models/hd128-" + file_type + ".gguf");
    const GgufFile reference = GgufFile::parse(bytes, bytes.size());
    for (const GgufTensor& tensor : reference.tensors()) {
      if (tensor.rows == 1 || !can_quantize(tensor.type)) continue;
      const GgufTensor& original = *source.find_tensor(tensor.name);
      const auto weights = dequantized(original.type, source_bytes.data() + original.offset,
                                       size_t(original.rows * original.cols));
      check_rmse(file_type + " " + std::string(tensor.name), tensor.type, weights,
                 bytes.data() + tensor.offset);
      ++compared;
    }
  }
  CHECK_EQ(compared, 160);
}

TEST("quantize: floating-point rows are rounded once") {
  const std::vector<float> weights = {0.0f, 1.0f, -1.0f / 3, 65504.0f, 1e-7f, 2048.5f};
  CHECK(dequantized(QuantType::kF32, quantized(QuantType::kF32, weights).data(), weights.size()) == weights);
  const auto f16 = dequantized(QuantType::kF16, quantized(QuantType::kF16, weights).data(), weights.size());
  const auto bf16 =
      dequantized(QuantType::kBF16, quantized(QuantType::kBF16, weights).data(), weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    CHECK(std::fabs(f16[i] - weights[i]) <= std::max(std::fabs(weights[i]) * 0x1p-11f, 0x1p-25f));
    CHECK(std::fabs(bf16[i] - weights[i]) <= std::fabs(weights[i]) * 0x1p-8f);
  }
}

// Weights that are representable survive: q * d with d a power of two and an extreme code in each block.
TEST("quantize: representable weights come back exactly") {
  const auto exact = [](QuantType type, int lowest, int highest) {
    std::vector<float> weights(512);
    for (size_t i = 0; i < weights.size(); ++i) {
      const size_t k = i % 32;
      weights[i] = 0.25f * float(k == 0   ? lowest
                                 : k == 1 ? highest
                                          : lowest + int(k * 7) % (highest - lowest + 1));
    }
    CHECK(dequantized(type, quantized(type, weights).data(), weights.size()) == weights);
  };
  exact(QuantType::kQ4_0, -8, 7);
  exact(QuantType::kQ4_1, -3, 12);
  exact(QuantType::kQ5_0, -16, 15);
  exact(QuantType::kQ5_1, -3, 28);
  exact(QuantType::kQ8_0, -127, 127);
}

TEST("quantize: zeros, constants and the smallest weights stay finite") {
  for (QuantType type : kQuantizedTypes) {
    const std::vector<float> zeros(256, 0.0f);
    CHECK(dequantized(type, quantized(type, zeros).data(), 256) == zeros);
    for (float constant : {1.0f, -1.0f, 65504.0f, -65504.0f, 1e-6f, -1e-20f, 1e-38f, 1e-45f, -1e-45f}) {
      const std::vector<float> weights(256, constant);
      for (float value : dequantized(type, quantized(type, weights).data(), 256)) {
        CHECK(std::isfinite(value));
        CHECK(std::fabs(value - constant) <= std::max(0.05f * std::fabs(constant), 1e-5f));
      }
      std::vector<float> spike(256, 0.0f);  // one weight in the middle of zeros
      spike[100] = constant;
      const std::vector<float> values = dequantized(type, quantized(type, spike).data(), 256);
      for (size_t i = 0; i < 256; ++i)
        CHECK(std::fabs(values[i] - spike[i]) <= std::max(0.05f * std::fabs(constant), 1e-5f));
    }
  }
}

TEST("quantize: weights that cannot be stored are refused") {
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), HUGE_VALF, -HUGE_VALF}) {
    std::vector<float> weights(256, 1.0f);
    weights[200] = bad;
    for (QuantType type : kQuantizedTypes) CHECK_THROWS(quantized(type, weights), ErrorCode::kModelFormat);
    for (QuantType type : {QuantType::kF32, QuantType::kF16, QuantType::kBF16})
      CHECK_THROWS(quantized(type, weights), ErrorCode::kModelFormat);
  }
  const std::vector<float> large(256, 65536.0f);
  CHECK_THROWS(quantized(QuantType::kQ4_K, large), ErrorCode::kModelFormat);
  CHECK_THROWS(quantized(QuantType::kF16, large), ErrorCode::kModelFormat);
  CHECK(dequantized(QuantType::kBF16, quantized(QuantType::kBF16, large).data(), 256) == large);
  CHECK_THROWS(quantized(QuantType::kIQ4_NL, large), ErrorCode::kInvalidArg);
  CHECK_THROWS(quantized(QuantType::kIQ4_XS, large), ErrorCode::kInvalidArg);
}
