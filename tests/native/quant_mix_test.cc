// SPDX-License-Identifier: Apache-2.0
// The mixes, tensor by tensor: against files that llama.cpp's quantiser made, and for the published 7B shape
// against their sizes and the layers that the rules name.
#include "model/quant_mix.h"

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "check.h"
#include "expect_error.h"
#include "io/gguf.h"
#include "vectors.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

ModelConfig mistral_7b() {
  ModelConfig config;
  config.dim = 4096;
  config.hidden_dim = 14336;
  config.n_layers = 32;
  config.n_heads = 32;
  config.n_kv_heads = 8;
  config.head_dim = 128;
  config.vocab_size = 32000;
  return config;
}

// Layers whose `role` gets `type`.
std::set<int32_t> layers(const char* mix, TensorRole role, QuantType type) {
  std::set<int32_t> found;
  const ModelConfig config = mistral_7b();
  for (const ModelTensor& tensor : model_tensors(config))
    if (tensor.role == role && mixed_type(quant_mix(mix), tensor, config, false) == type)
      found.insert(tensor.layer);
  return found;
}

std::set<int32_t> first(int32_t n) {
  std::set<int32_t> layers;
  for (int32_t i = 0; i < n; ++i) layers.insert(i);
  return layers;
}

}  // namespace

TEST("quant_mix: every tensor has the type that llama-quantize gave it") {
  int compared = 0;
  for (const char* name : {"f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_m", "q4_k_s",
                           "q4_k_m", "q5_k_m", "q6_k"}) {
    const auto bytes = read_vector_file("models/hd128-" + std::string(name) + ".gguf");
    const GgufFile file = GgufFile::parse(bytes, bytes.size());
    const ModelConfig config = config_from_gguf(file);
    const QuantMix& mix = quant_mix(name);
    CHECK_EQ(mix.file_type, *file.get_uint("general.file_type"));
    for (const ModelTensor& tensor : model_tensors(config)) {
      const QuantType expected = file.find_tensor(tensor.name)->type;
      if (mixed_type(mix, tensor, config, false) != expected)
        fail(
            __FILE__, __LINE__,
            std::string(name) + " " + tensor.name + " should be " + std::string(quant_traits(expected).name));
      ++compared;
    }
  }
  CHECK_EQ(compared, 13 * 21);
}

TEST("quant_mix: the layers with more bits in a model of 32 layers") {
  using enum TensorRole;
  const std::set<int32_t> sensitive{0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31};
  for (const TensorRole role : {kV, kDown}) {
    CHECK(layers("q4_k_m", role, QuantType::kQ6_K) == sensitive);
    CHECK(layers("q5_k_m", role, QuantType::kQ6_K) == sensitive);
    CHECK(layers("q4_k_s", role, QuantType::kQ5_K) == first(4));
    CHECK(layers("q3_k_m", role, QuantType::kQ5_K) == first(2));
    CHECK_EQ(layers("q3_k_m", role, QuantType::kQ4_K).size(), 30u);
  }
  CHECK(layers("q3_k_m", kAttentionOutput, QuantType::kQ4_K) == first(32));
  CHECK(layers("q2_k", kV, QuantType::kQ4_K) == first(32));  // four query heads share a value head
  CHECK(layers("q2_k", kDown, QuantType::kQ3_K) == first(32));
  CHECK(layers("q4_k", kDown, QuantType::kQ4_K) == first(32));
  for (const TensorRole role : {kQ, kK, kGate, kUp})
    CHECK(layers("q4_k_m", role, QuantType::kQ4_K) == first(32));
}

// Sizes of the published files of Mistral 7B v0.1, as their model cards give them.
TEST("quant_mix: a 7B model has the sizes of the published files") {
  const std::map<std::string, double> published{
      {"q3_k", 3.16}, {"q3_k_m", 3.52}, {"q4_0", 4.11},   {"q4_k_s", 4.14}, {"q4_k_m", 4.37},
      {"q5_0", 5.00}, {"q5_k", 5.00},   {"q5_k_m", 5.13}, {"q6_k", 5.94},   {"q8_0", 7.70}};
  const ModelConfig config = mistral_7b();
  for (const auto& [name, gigabytes] : published) {
    uint64_t bytes = 0;
    for (const ModelTensor& tensor : model_tensors(config))
      bytes += uint64_t(tensor.rows) *
               row_bytes(mixed_type(quant_mix(name), tensor, config, false), uint64_t(tensor.cols));
    if (std::fabs(double(bytes) / 1e9 - gigabytes) > 0.0051)
      fail(__FILE__, __LINE__, name + ": " + std::to_string(bytes) + " bytes");
  }
}

TEST("quant_mix: a tied embedding makes the logits, so it has the type of an output matrix") {
  const ModelConfig config = mistral_7b();
  const ModelTensor embedding = model_tensors(config).front();
  CHECK(mixed_type(quant_mix("q4_k_m"), embedding, config, false) == QuantType::kQ4_K);
  CHECK(mixed_type(quant_mix("q4_k_m"), embedding, config, true) == QuantType::kQ6_K);
  CHECK(mixed_type(quant_mix("q8_0"), embedding, config, true) == QuantType::kQ8_0);
}

TEST("quant_mix: columns that are no whole blocks get the next smaller blocks") {
  const ModelConfig config = mistral_7b();
  const auto type = [&](const char* mix, TensorRole role, int64_t cols) {
    return mixed_type(quant_mix(mix), {role, 20, "x", 64, cols}, config, false);
  };
  CHECK(type("q4_k_m", TensorRole::kGate, 96) == QuantType::kQ5_0);
  CHECK(type("q5_k", TensorRole::kGate, 96) == QuantType::kQ5_1);
  CHECK(type("q4_k_m", TensorRole::kOutput, 96) == QuantType::kQ8_0);
  CHECK(type("q3_k_m", TensorRole::kGate, 96) == QuantType::kQ4_0);
  CHECK(type("q4_k_m", TensorRole::kGate, 48) == QuantType::kF16);
  CHECK(type("q4_k_m", TensorRole::kGate, 512) == QuantType::kQ4_K);
}

TEST("quant_mix: an unknown name is refused with the list") {
  expect_error("iq4_xs", ErrorCode::kInvalidArg, "'iq4_xs' is no type to quantise to; there are f32, f16",
               [] { quant_mix("iq4_xs"); });
}
