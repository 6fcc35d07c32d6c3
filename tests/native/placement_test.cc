// SPDX-License-Identifier: Apache-2.0
// How many layers go to a GPU of a given size.
#include "engine/placement.h"

#include "check.h"
#include "model/gguf_weights.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

TEST("placement: the last layers that fit, the cache of one sequence counted") {
  PlacementSizes sizes;
  sizes.layers = {100'000, 100'000, 200'000, 100'000};
  sizes.embedding = 40'000;
  sizes.output = 50'000;
  sizes.kv_layer = 8'000;  // pages get four fifths of what is left
  sizes.workspace = 30'000;
  // Of what is free, a twentieth is left alone.
  const auto fit = [&](uint64_t thousands) { return layers_within(thousands * 20'000 / 19 + 20, sizes); };
  CHECK_EQ(fit(30 + 50 + 109), 0);
  CHECK_EQ(fit(30 + 50 + 110), 1);
  CHECK_EQ(fit(30 + 50 + 110 + 209), 1);
  CHECK_EQ(fit(30 + 50 + 110 + 210), 2);
  CHECK_EQ(fit(30 + 50 + 110 + 210 + 110), 3);
  CHECK_EQ(fit(30 + 50 + 110 + 210 + 110 + 149), 3);  // the embedding comes with the first layer
  CHECK_EQ(fit(30 + 50 + 110 + 210 + 110 + 150), 4);
  CHECK_EQ(layers_within(0, sizes), 0);
}

TEST("placement: sizes are what loading reserves") {
  const MappedFile file(std::string(test::kVectors) + "/models/swa16-bf16.gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  const auto backend = make_cpu_backend({1, "", {}, {}});
  EngineConfig engine;
  engine.context_length = 150;  // 3 pages
  engine.max_batch_tokens = 8;
  const PlacementSizes sizes = placement_sizes(GgufWeights(file, header, config), config, *backend, engine);
  CHECK_EQ(sizes.layers.size(), 3u);
  // Norms come on top of the seven matrices.
  const int64_t dim = config.dim, hidden = config.hidden_dim, q = config.n_heads * config.head_dim,
                kv = config.n_kv_heads * config.head_dim;
  uint64_t matrices = 0;
  for (const auto& [rows, cols] :
       {std::pair(q, dim), std::pair(kv, dim), std::pair(kv, dim), std::pair(dim, q), std::pair(hidden, dim),
        std::pair(hidden, dim), std::pair(dim, hidden)})
    matrices += backend->matrix_bytes(QuantType::kBF16, rows, cols);
  for (const uint64_t layer : sizes.layers) {
    CHECK(layer >= matrices);
    CHECK(layer < matrices + matrices / 10);
  }
  CHECK(sizes.embedding == backend->table_bytes(QuantType::kBF16, config.vocab_size, dim));
  CHECK(sizes.output > backend->matrix_bytes(QuantType::kBF16, config.vocab_size, dim));
  // Keys and values of 16 bits, and a scale of each for every position and head.
  CHECK_EQ(sizes.kv_layer, uint64_t(3 * 64 * 2) * uint64_t(2 * kv + 4 * config.n_kv_heads));
}
