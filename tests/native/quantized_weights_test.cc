// SPDX-License-Identifier: Apache-2.0
// Quantising while loading: the blocks and logits of files and checkpoints that were quantised before.
#include "model/quantized_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "check.h"
#include "engine/model_source.h"
#include "engine/quantize_model.h"
#include "expect_error.h"
#include "quant/dequantize.h"
#include "quant/nf4.h"
#include "reference.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string hf(const std::string& name) { return std::string(test::kVectors) + "/hf/" + name; }

std::unique_ptr<Model> load(const WeightStore& weights, const ModelConfig& c) {
  auto model = load_model(
      weights, c, make_cpu_backend({.threads = 1, .isa = "", .weights = {}, .weights_owner = {}}), {});
  model->prepare(512, {c.n_layers, c.n_kv_heads, c.head_dim, KvType::kF16, 64, c.sliding_window});
  return model;
}

std::vector<std::byte> all_rows(const WeightStore& weights, const ModelTensor& tensor) {
  const auto source = weights.open(tensor);
  std::vector<std::byte> rows(size_t(tensor.rows) * row_bytes(source->type, uint64_t(tensor.cols)));
  source->read_rows(0, tensor.rows, rows.data());
  return rows;
}

const std::vector<int32_t> kTokens{1, 17, 5, 90, 33, 2, 64, 8, 41, 3, 77, 20, 300, 211, 9, 499};

}  // namespace

TEST(
    "quantized_weights: bitsandbytes checkpoints run as blocks, with the logits of their dequantised "
    "weights") {
  for (const std::string name : {"swa16-nf4", "swa16-fp4-double", "hd128-nf4-double"}) {
    const auto source = open_model_source(ModelPath(hf(name)));
    const QuantType expected = name.find("fp4") == std::string::npos ? QuantType::kNF4 : QuantType::kFP4;
    int blocks = 0;
    for (const ModelTensor& tensor : source->weights().tensors())
      blocks += source->weights().type(tensor) == expected;
    CHECK_EQ(blocks, 7 * source->config().n_layers);
    CHECK_EQ(check_prompts(*load(source->weights(), source->config()), name), 2);
  }
}

// Without double quantisation rows do not touch each other, so reordering those of Q and K changes nothing.
TEST("quantized_weights: NF4 while loading gives the blocks of a checkpoint that bitsandbytes quantised") {
  const auto original = open_model_source(ModelPath(hf("swa16"))),
             checkpoint = open_model_source(ModelPath(hf("swa16-nf4")));
  const QuantizedWeights ours(original->weights(), quant_mix("nf4"), original->config());
  for (const ModelTensor& tensor : ours.tensors()) {
    if (tensor.is_norm()) continue;
    CHECK(ours.type(tensor) == checkpoint->weights().type(tensor));
    CHECK(all_rows(ours, tensor) == all_rows(checkpoint->weights(), tensor));
  }
}

TEST("quantized_weights: double quantisation while loading gives the scales of bitsandbytes") {
  for (const auto& [name, mix] :
       {std::pair("hd128-nf4-double", "nf4"), std::pair("swa16-fp4-double", "fp4")}) {
    const std::string plain = std::string(name).substr(0, std::string(name).find('-'));
    const auto original = open_model_source(ModelPath(hf(plain))),
               checkpoint = open_model_source(ModelPath(hf(name)));
    const QuantizedWeights ours(original->weights(), quant_mix(mix), original->config(), true);
    size_t scales = 0, close = 0;
    for (const ModelTensor& tensor : ours.tensors()) {
      if (tensor.is_norm()) continue;
      CHECK(ours.type(tensor) == checkpoint->weights().type(tensor));
      const auto a = all_rows(ours, tensor), b = all_rows(checkpoint->weights(), tensor);
      if (is_gguf_type(ours.type(tensor))) {  // outside the layers
        CHECK(a == b);
        continue;
      }
      for (size_t at = 0; at < a.size(); at += sizeof(BlockNF4), ++scales) {
        float x, y;
        std::memcpy(&x, &a[at], 4);
        std::memcpy(&y, &b[at], 4);
        CHECK_EQ(std::memcmp(&a[at + 4], &b[at + 4], 32), 0);
        // The mean of all scales is a sum whose order is not ours.
        close += std::fabs(x - y) <= 2e-6f * y;
      }
    }
    CHECK(scales > 0);
    CHECK_EQ(close, scales);
    CHECK_EQ(check_prompts(*load(ours, original->config()), name), 2);
  }
}

TEST("quantized_weights: loading with a mix equals loading the file that the quantiser writes") {
  TempDir dir;
  const auto original = open_model_source(ModelPath(hf("hd128")));
  for (const std::string mix : {"q4_k_m", "q8_0", "q5_0", "f16"}) {
    quantize_model(hf("hd128"), dir.path("out"), {.type = mix, .threads = 1}, {});
    const auto file = open_model_source(ModelPath(dir.path("out")));
    const QuantizedWeights ours(original->weights(), quant_mix(mix), original->config());
    for (const ModelTensor& tensor : ours.tensors()) CHECK(ours.type(tensor) == file->weights().type(tensor));
    CHECK(same_bits(run_logits(*load(ours, original->config()), kTokens),
                    run_logits(*load(file->weights(), file->config()), kTokens)));
  }
}

TEST("quantized_weights: a 4-bit checkpoint becomes a GGUF file of its dequantised weights, not of NF4") {
  TempDir dir;
  const auto checkpoint = open_model_source(ModelPath(hf("swa16-nf4")));
  const ModelConfig& config = checkpoint->config();
  const QuantizedWeights bf16(checkpoint->weights(), quant_mix("bf16"), config);
  for (const ModelTensor& tensor : bf16.tensors()) {
    if (tensor.is_norm() || checkpoint->weights().type(tensor) != QuantType::kNF4) continue;
    const auto blocks = all_rows(checkpoint->weights(), tensor), halves = all_rows(bf16, tensor);
    std::vector<float> exact(size_t(tensor.rows * tensor.cols)), stored(exact.size());
    dequantize_row(QuantType::kNF4, blocks.data(), int64_t(exact.size()), exact.data());
    dequantize_row(QuantType::kBF16, halves.data(), int64_t(stored.size()), stored.data());
    for (size_t i = 0; i < exact.size(); ++i)
      CHECK(std::fabs(stored[i] - exact[i]) <= std::fabs(exact[i]) / 256);
  }
  expect_error("nf4", ErrorCode::kInvalidArg, "GGUF files cannot hold 'nf4'",
               [&] { quantize_model(hf("hd128"), dir.path("out"), {.type = "nf4"}, {}); });
}
