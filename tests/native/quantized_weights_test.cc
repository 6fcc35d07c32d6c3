// SPDX-License-Identifier: Apache-2.0
// Quantising while loading: the logits of files that were quantised before.
#include "model/quantized_weights.h"

#include "check.h"
#include "engine/model_source.h"
#include "engine/quantize_model.h"
#include "reference.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string hf(const std::string& name) { return std::string(MAESTRALE_VECTORS) + "/hf/" + name; }

std::unique_ptr<Model> load(const WeightStore& weights, const ModelConfig& c) {
  auto model = load_model(
      weights, c, make_cpu_backend({.threads = 1, .isa = "", .weights = {}, .weights_owner = {}}), {});
  model->prepare(512, {c.n_layers, c.n_kv_heads, c.head_dim, KvType::kF16, 64, c.sliding_window});
  return model;
}

const std::vector<int32_t> kTokens{1, 17, 5, 90, 33, 2, 64, 8, 41, 3, 77, 20, 300, 211, 9, 499};

}  // namespace

TEST("quantized_weights: loading with a mix equals loading the file that the quantiser writes") {
  TempDir dir;
  const auto original = open_model_source(hf("hd128"));
  for (const std::string mix : {"q4_k_m", "q8_0", "q5_0", "f16"}) {
    quantize_model(hf("hd128"), dir.path("out"), {.type = mix, .threads = 1}, {});
    const auto file = open_model_source(dir.path("out"));
    const QuantizedWeights ours(original->weights(), quant_mix(mix), original->config());
    for (const ModelTensor& tensor : ours.tensors()) CHECK(ours.type(tensor) == file->weights().type(tensor));
    CHECK(same_bits(run_logits(*load(ours, original->config()), kTokens),
                    run_logits(*load(file->weights(), file->config()), kTokens)));
  }
}
