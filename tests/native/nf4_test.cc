// SPDX-License-Identifier: Apache-2.0
// NF4 and FP4 against matrices of bitsandbytes checkpoints: dequantised values, codes and scales, bit for
// bit.
#include "quant/nf4.h"

#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/json.h"
#include "check.h"
#include "vectors.h"

using namespace maestrale;

namespace {

using Vectors = std::map<std::string, test::VectorTensor>;

struct Checkpoint {
  const char* prefix;
  FourBitType type;
  bool nested;
};

constexpr Checkpoint kCheckpoints[] = {
    {"swa16-nf4.self_attn.k_proj", FourBitType::kNF4, false},
    {"swa16-nf4.self_attn.v_proj", FourBitType::kNF4, false},
    {"swa16-fp4-double.self_attn.k_proj", FourBitType::kFP4, true},
    {"swa16-fp4-double.self_attn.v_proj", FourBitType::kFP4, true},
    {"hd128-nf4-double.self_attn.k_proj", FourBitType::kNF4, true},
};

float nested_offset(const Vectors& vectors, const Checkpoint& c) {
  const std::string key =
      std::string(c.prefix) + ".quant_state.bitsandbytes__" + (c.type == FourBitType::kNF4 ? "nf4" : "fp4");
  const auto text = vectors.at(key).as<char>();
  return float(*Json::parse({text.data(), text.size()}).find("nested_offset")->number());
}

std::vector<float> source_weights(const Vectors& vectors, const Checkpoint& c) {
  std::vector<float> weights;
  for (uint16_t half : vectors.at(std::string(c.prefix) + ".source").as<uint16_t>())
    weights.push_back(bf16_to_f32(half));
  return weights;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

std::string hex(const uint8_t* bytes, size_t n) {
  std::string text;
  for (size_t i = 0; i < n; ++i)
    for (int nibble : {bytes[i] >> 4, bytes[i] & 15}) text += "0123456789abcdef"[nibble];
  return text;
}

}  // namespace

TEST("nf4: checkpoints dequantise bit for bit") {
  const Vectors vectors = test::read_vectors("four-bit.vectors.safetensors");
  for (const Checkpoint& c : kCheckpoints) {
    const std::string prefix = c.prefix;
    const auto codes = vectors.at(prefix).as<uint8_t>();
    const auto expected = vectors.at(prefix + ".dequantized").as<float>();
    std::vector<float> absmax;
    if (c.nested) {
      const auto map = vectors.at(prefix + ".nested_quant_map").as<float>();
      CHECK_EQ(map.size(), 256u);
      absmax = dequantize_scales(
          std::span<const float, 256>(map.data(), 256), vectors.at(prefix + ".absmax").as<uint8_t>(),
          vectors.at(prefix + ".nested_absmax").as<float>(), kNestedBlock, nested_offset(vectors, c));
    } else {
      absmax = vectors.at(prefix + ".absmax").as<float>();
    }
    CHECK_EQ(absmax.size() * kFourBitBlock, expected.size());
    std::vector<float> actual(expected.size());
    for (size_t b = 0; b < absmax.size(); ++b)
      dequantize_four_bit(four_bit_table(c.type), absmax[b], &codes[b * kFourBitBlock / 2], kFourBitBlock,
                          &actual[b * kFourBitBlock]);
    CHECK(same_bits(actual, expected));
  }
}

TEST("nf4: our tables and map are those of the checkpoints") {
  const Vectors vectors = test::read_vectors("four-bit.vectors.safetensors");
  const auto map = dynamic_map();
  for (const Checkpoint& c : kCheckpoints) {
    const FourBitTable& table = four_bit_table(c.type);
    CHECK(same_bits({table.begin(), table.end()},
                    vectors.at(std::string(c.prefix) + ".quant_map").as<float>()));
    if (c.nested)
      CHECK(same_bits({map.begin(), map.end()},
                      vectors.at(std::string(c.prefix) + ".nested_quant_map").as<float>()));
  }
}

TEST("nf4: quantising the source weights gives the codes and scales of the checkpoints") {
  const Vectors vectors = test::read_vectors("four-bit.vectors.safetensors");
  for (const Checkpoint& c : kCheckpoints) {
    const std::string prefix = c.prefix;
    const std::vector<float> weights = source_weights(vectors, c);
    std::vector<uint8_t> codes(weights.size() / 2);
    std::vector<float> absmax(weights.size() / kFourBitBlock);
    for (size_t b = 0; b < absmax.size(); ++b)
      absmax[b] = quantize_four_bit(c.type, &weights[b * kFourBitBlock], kFourBitBlock,
                                    &codes[b * kFourBitBlock / 2]);
    CHECK(codes == vectors.at(prefix).as<uint8_t>());
    if (!c.nested) {
      CHECK(same_bits(absmax, vectors.at(prefix + ".absmax").as<float>()));
      continue;
    }
    const NestedScales scales = quantize_scales(absmax);
    CHECK_EQ(scales.offset, nested_offset(vectors, c));
    CHECK(scales.codes == vectors.at(prefix + ".absmax").as<uint8_t>());
    CHECK(same_bits(scales.nested_absmax, vectors.at(prefix + ".nested_absmax").as<float>()));
  }
}

TEST("nf4: published examples of a block") {
  float weights[64];
  uint8_t codes[32];
  for (int k = 0; k < 64; ++k) weights[k] = float(std::sin(double(k + 1)));
  CHECK_EQ(quantize_four_bit(FourBitType::kNF4, weights, 64, codes), 0.9999902248382568f);
  CHECK_EQ(hex(codes, 32), std::string("ef9104efc202cfe4019fe7106efa103dfd301bfe5017ef9104efc202cfd4019f"));
  for (int k = 0; k < 64; ++k) weights[k] = float(k - 32) / 32;
  CHECK_EQ(quantize_four_bit(FourBitType::kNF4, weights, 64, codes), 1.0f);
  CHECK_EQ(hex(codes, 32), std::string("000001111111122222333344455566677788999aaabbbccccddddeeeeeeeffff"));
}

TEST("nf4: double quantisation of scales") {
  std::vector<float> absmax(512);
  for (int k = 0; k < 512; ++k) absmax[size_t(k)] = float(0.01 + 0.001 * std::sin(double(k + 1)));
  const NestedScales scales = quantize_scales(absmax);
  CHECK(std::fabs(scales.offset - 0.010003646835684776f) < 2e-9f);
  CHECK_EQ(scales.nested_absmax.size(), 2u);
  for (float nested : scales.nested_absmax) CHECK(std::fabs(nested - 0.0010036369785666466f) < 2e-9f);
  const uint8_t first[] = {243, 248, 193, 17, 2, 51, 230, 253, 212, 32, 0, 32, 213, 253, 229, 50};
  for (size_t i = 0; i < 16; ++i) CHECK_EQ(int(scales.codes[i]), int(first[i]));
  const auto map = dynamic_map();
  const auto back = dequantize_scales(map, scales.codes, scales.nested_absmax, kNestedBlock, scales.offset);
  float error = 0;
  for (size_t i = 0; i < 512; ++i) error = std::max(error, std::fabs(back[i] - absmax[i]));
  CHECK(error < 7.1e-6f && error > 7.0e-6f);
  CHECK(quantize_scales({}).codes.empty());
  const NestedScales constant = quantize_scales(std::vector<float>(300, 0.5f));  // a partial second block
  CHECK_EQ(constant.nested_absmax.size(), 2u);
  for (float value :
       dequantize_scales(map, constant.codes, constant.nested_absmax, kNestedBlock, constant.offset))
    CHECK_EQ(value, 0.5f);
}

TEST("nf4: blocks of zeros and of denormals") {
  for (FourBitType type : {FourBitType::kNF4, FourBitType::kFP4})
    for (float value : {0.0f, 1e-45f, -1e-40f}) {
      const std::vector<float> weights(64, value);
      uint8_t codes[32];
      const float absmax = quantize_four_bit(type, weights.data(), 64, codes);
      CHECK_EQ(absmax, std::fabs(value));
      float out[64];
      dequantize_four_bit(four_bit_table(type), absmax, codes, 64, out);
      for (float w : out) CHECK_EQ(w, 0.0f);
    }
}
