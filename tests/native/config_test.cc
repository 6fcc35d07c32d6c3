// SPDX-License-Identifier: Apache-2.0
// Hyperparameters: the published files, the defaults, and every value that must be refused.
#include "model/config.h"

#include <cmath>
#include <functional>
#include <limits>

#include "check.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "io/mapped_file.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

ModelConfig config_of(const GgufBuilder& builder) {
  const std::vector<std::byte> bytes = builder.build();
  return config_from_gguf(GgufFile::parse(bytes, bytes.size()));
}

ModelConfig config_of_file(const std::string& name) {
  const MappedFile file(std::string(test::kVectors) + "/" + name);
  return config_from_gguf(GgufFile::parse(file.bytes(), file.size()));
}

using Change = std::function<void(GgufBuilder&)>;

ModelConfig changed(const Change& change) {
  GgufBuilder builder = tiny_llama();
  change(builder);
  return config_of(builder);
}

struct Refused {
  const char* what;
  Change change;
  const char* words;
  ErrorCode code = ErrorCode::kModelFormat;
};

void refuse(const std::vector<Refused>& cases) {
  for (const Refused& c : cases) expect_error(c.what, c.code, c.words, [&] { changed(c.change); });
}

// The metadata of the published v0.1 files, which have no window key.
GgufBuilder published_v01() {
  GgufBuilder b = tiny_llama();
  b.u32("llama.context_length", 32768).u32("llama.embedding_length", 4096).u32("llama.block_count", 32);
  b.u32("llama.feed_forward_length", 14336).u32("llama.rope.dimension_count", 128);
  b.u32("llama.attention.head_count", 32)
      .u32("llama.attention.head_count_kv", 8)
      .u32("llama.vocab_size", 32000);
  return b;
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

}  // namespace

TEST("config: the published vocabularies are recognised") {
  const ModelConfig v01 = config_of_file("tokenizers/vocab-only-v0.1.gguf");
  CHECK_EQ(v01.version, "v0.1");
  CHECK_EQ(v01.sliding_window, 4096);
  CHECK_EQ(v01.sliding_window_source, "recognised v0.1");
  CHECK_EQ(v01.dim, 4096);
  CHECK_EQ(v01.hidden_dim, 14336);
  CHECK_EQ(v01.n_layers, 32);
  CHECK_EQ(v01.n_heads, 32);
  CHECK_EQ(v01.n_kv_heads, 8);
  CHECK_EQ(v01.head_dim, 128);
  CHECK_EQ(v01.vocab_size, 32000);
  CHECK_EQ(v01.norm_eps, 1e-5f);
  CHECK_EQ(v01.rope_theta, 10000.0);
  CHECK_EQ(v01.context_length, 32768);
  CHECK_EQ(v01.name, "mistralai_mistral-7b-instruct-v0.1");

  const ModelConfig v02 = config_of_file("tokenizers/vocab-only-v0.2.gguf");
  CHECK_EQ(v02.version, "v0.2");
  CHECK_EQ(v02.sliding_window, 0);
  CHECK_EQ(v02.sliding_window_source, "none");
  CHECK_EQ(v02.rope_theta, 1e6);

  const ModelConfig v03 = config_of_file("tokenizers/vocab-only-v0.3.gguf");
  CHECK_EQ(v03.version, "v0.3");
  CHECK_EQ(v03.sliding_window, 0);
  CHECK_EQ(v03.vocab_size, 32768);
}

TEST("config: the test models declare their windows and head sizes") {
  const ModelConfig swa16 = config_of_file("models/swa16-bf16.gguf");
  CHECK_EQ(swa16.sliding_window, 16);
  CHECK_EQ(swa16.sliding_window_source, "metadata");
  CHECK_EQ(swa16.head_dim, 32);
  const ModelConfig hd128 = config_of_file("models/hd128-q4_k_m.gguf");
  CHECK_EQ(hd128.sliding_window, 64);
  CHECK_EQ(hd128.head_dim, 128);
  CHECK_EQ(hd128.n_heads * hd128.head_dim, 2 * hd128.dim);
  const ModelConfig full = config_of_file("models/full-bf16.gguf");
  CHECK_EQ(full.sliding_window, 0);
  CHECK_EQ(full.rope_theta, 1e6);
  CHECK_EQ(full.version, "");
}

TEST("config: recognition of v0.1 accepts fine-tunes and nothing else") {
  const auto window = [](const Change& change) {
    GgufBuilder b = published_v01();
    change(b);
    return config_of(b).sliding_window;
  };
  CHECK_EQ(window([](auto&) {}), 4096);
  CHECK_EQ(window([](auto& b) { b.u32("llama.vocab_size", 32002); }), 4096);
  CHECK_EQ(window([](auto& b) { b.erase("llama.rope.freq_base"); }), 4096);
  CHECK_EQ(window([](auto& b) { b.f32("llama.rope.freq_base", 1e6f); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.vocab_size", 32768); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.feed_forward_length", 11008); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.attention.head_count_kv", 32); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.block_count", 31); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.context_length", 4096); }), 0);
  // The key wins over recognition, also when it says "no window".
  CHECK_EQ(window([](auto& b) { b.u32("llama.attention.sliding_window", 0); }), 0);
  CHECK_EQ(window([](auto& b) { b.u32("llama.attention.sliding_window", 1024); }), 1024);
}

TEST("config: defaults of absent keys") {
  const ModelConfig config = changed([](GgufBuilder& b) {
    b.erase("llama.attention.head_count_kv")
        .erase("llama.rope.freq_base")
        .erase("llama.rope.dimension_count");
    b.erase("general.name");
  });
  CHECK_EQ(config.n_kv_heads, 2);
  CHECK_EQ(config.rope_theta, 10000.0);
  CHECK_EQ(config.head_dim, 16);
  CHECK_EQ(config.vocab_size, 5);
  CHECK_EQ(config.name, "");
  CHECK_EQ(config.sliding_window_source, "none");
}

TEST("config: integers of any width serve, and padding rows of the vocabulary") {
  const ModelConfig config = changed([](GgufBuilder& b) {
    b.u64("llama.block_count", 1).i32("llama.attention.head_count", 2).u32("llama.vocab_size", 8);
    b.i32("llama.attention.sliding_window", 7);
  });
  CHECK_EQ(config.n_layers, 1);
  CHECK_EQ(config.n_heads, 2);
  CHECK_EQ(config.vocab_size, 8);
  CHECK_EQ(config.sliding_window, 7);
}

TEST("config: other architectures and kinds of file are refused by name") {
  const ErrorCode unsupported = ErrorCode::kModelUnsupported;
  refuse({
      {"qwen2", [](auto& b) { b.string("general.architecture", "qwen2"); }, "is 'qwen2', but only 'llama'",
       unsupported},
      {"mistral3", [](auto& b) { b.string("general.architecture", "mistral3"); }, "is 'mistral3'",
       unsupported},
      {"none", [](auto& b) { b.erase("general.architecture"); }, "'general.architecture' is missing"},
      {"number", [](auto& b) { b.u32("general.architecture", 1); }, "but must be a string"},
      {"adapter", [](auto& b) { b.string("general.type", "adapter"); }, "is 'adapter'", unsupported},
  });
}

TEST("config: features that Mistral does not have are refused by key") {
  const ErrorCode unsupported = ErrorCode::kModelUnsupported;
  refuse({
      {"experts", [](auto& b) { b.u32("llama.expert_count", 8); }, "mixture-of-experts", unsupported},
      {"not causal", [](auto& b) { b.boolean("llama.attention.causal", 0); }, "only causal", unsupported},
      {"pattern", [](auto& b) { b.u32("llama.attention.sliding_window_pattern", 2); },
       "sliding_window_pattern", unsupported},
      {"logit scale", [](auto& b) { b.f32("llama.logit_scale", 2.0f); }, "llama.logit_scale", unsupported},
      {"yarn", [](auto& b) { b.string("llama.rope.scaling.type", "yarn"); }, "is 'yarn'", unsupported},
      {"factor", [](auto& b) { b.f32("llama.rope.scaling.factor", 4.0f); }, "is 4, but only unscaled",
       unsupported},
      {"old factor", [](auto& b) { b.f32("llama.rope.scale_linear", 0.5f); }, "is 0.5, but only unscaled",
       unsupported},
      {"NaN factor", [](auto& b) { b.f32("llama.rope.scaling.factor", kNaN); }, "only unscaled", unsupported},
  });
  changed([](auto& b) { b.u32("llama.expert_count", 0).boolean("llama.attention.causal", 1); });
  changed(
      [](auto& b) { b.string("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 1.0f); });
  changed(
      [](auto& b) { b.string("llama.rope.scaling.type", "none").f32("llama.rope.scaling.factor", 4.0f); });
  changed([](auto& b) { b.f32("llama.rope.scale_linear", 0.0f); });
}

TEST("config: sizes out of range") {
  const auto key = [](const char* name, uint64_t value) {
    return [=](GgufBuilder& b) { b.u64(name, value); };
  };
  const auto without = [](const char* name) { return [=](GgufBuilder& b) { b.erase(name); }; };
  refuse({
      {"no layers key", without("llama.block_count"), "'llama.block_count' is missing"},
      {"0 layers", key("llama.block_count", 0), "is 0, but must be 1 to 512"},
      {"513 layers", key("llama.block_count", 513), "is 513, but must be 1 to 512"},
      {"2^31 layers", key("llama.block_count", uint64_t{1} << 31), "is 2147483648, but"},
      {"layers as text", [](auto& b) { b.string("llama.block_count", "1"); },
       "is a string, but must be an integer"},
      {"layers -1", [](auto& b) { b.i32("llama.block_count", -1); }, "is -1, but must not be negative"},
      {"no dim", without("llama.embedding_length"), "'llama.embedding_length' is missing"},
      {"dim 0", key("llama.embedding_length", 0), "is 0, but must be 1 to 65536"},
      {"dim 2^32", key("llama.embedding_length", uint64_t{1} << 32), "is 4294967296"},
      {"no hidden", without("llama.feed_forward_length"), "'llama.feed_forward_length' is missing"},
      {"hidden 0", key("llama.feed_forward_length", 0), "is 0, but must be 1"},
      {"hidden 2^64 - 1", key("llama.feed_forward_length", UINT64_MAX), "is 18446744073709551615"},
      {"no context", without("llama.context_length"), "'llama.context_length' is missing"},
      {"context 0", key("llama.context_length", 0), "is 0, but must be 1 to 2147483647"},
      {"context 2^32", key("llama.context_length", uint64_t{1} << 32), "is 4294967296"},
      {"window -1", [](auto& b) { b.i32("llama.attention.sliding_window", -1); }, "must not be negative"},
      {"window 2^31", key("llama.attention.sliding_window", uint64_t{1} << 31), "is 2147483648"},
      {"window 2^64 - 1", key("llama.attention.sliding_window", UINT64_MAX), "is 18446744073709551615"},
  });
}

TEST("config: heads") {
  const auto key = [](const char* name, uint64_t value) {
    return [=](GgufBuilder& b) { b.u64(name, value); };
  };
  const ErrorCode unsupported = ErrorCode::kModelUnsupported;
  refuse({
      {"no heads key", [](auto& b) { b.erase("llama.attention.head_count"); },
       "'llama.attention.head_count' is missing"},
      {"0 heads", key("llama.attention.head_count", 0), "is 0, but must be 1 to 1024"},
      {"3 heads", key("llama.attention.head_count", 3), "3 heads do not divide"},
      {"0 kv heads", key("llama.attention.head_count_kv", 0), "is 0, but must be 1 to 2"},
      {"more kv heads than heads", key("llama.attention.head_count_kv", 3), "is 3, but must be 1 to 2"},
      {"heads per layer", [](auto& b) { b.ints("llama.attention.head_count", {2}); },
       "an array of signed integers"},
      {"kv heads do not divide",
       [](auto& b) {
         b.u32("llama.attention.head_count", 4).u32("llama.attention.head_count_kv", 3);
         b.u32("llama.attention.key_length", 16);
       },
       "is 3, which does not divide the 4 query heads"},
      {"heads of 8", key("llama.attention.head_count", 4), "heads of 8 values", unsupported},
      {"heads of 24", key("llama.attention.key_length", 24), "heads of 24 values", unsupported},
      {"heads of 272", key("llama.attention.key_length", 272), "heads of 272 values", unsupported},
      {"heads of 0", key("llama.attention.key_length", 0), "'llama.attention.key_length'"},
      {"more heads than dim", key("llama.attention.head_count", 64), "64 heads do not divide"},
      {"values of another size", key("llama.attention.value_length", 32), "is 32, but the keys have 16"},
      {"partial rotation", key("llama.rope.dimension_count", 8), "is 8, but must be the head size, 16"},
      {"rotation 0", key("llama.rope.dimension_count", 0), "is 0, but must be the head size"},
  });
  const ModelConfig wide = changed(
      [](auto& b) { b.u32("llama.attention.key_length", 256).u32("llama.rope.dimension_count", 256); });
  CHECK_EQ(wide.head_dim, 256);
}

TEST("config: numbers that are none") {
  const auto eps = [](float value) {
    return [=](GgufBuilder& b) { b.f32("llama.attention.layer_norm_rms_epsilon", value); };
  };
  const auto theta = [](float value) {
    return [=](GgufBuilder& b) { b.f32("llama.rope.freq_base", value); };
  };
  refuse({
      {"no eps", [](auto& b) { b.erase("llama.attention.layer_norm_rms_epsilon"); },
       "rms_epsilon' is missing"},
      {"eps 0", eps(0), "must lie between 0 and 1"},
      {"eps negative", eps(-1e-5f), "is -9.99999975e-06, but must lie"},
      {"eps 1", eps(1), "must lie between 0 and 1"},
      {"eps NaN", eps(kNaN), "must lie between 0 and 1"},
      {"eps Inf", eps(kInf), "must lie between 0 and 1"},
      {"eps below float32", [](auto& b) { b.f64("llama.attention.layer_norm_rms_epsilon", 1e-60); },
       "is 1e-60"},
      {"theta 0", theta(0), "is 0, but must be finite and above 0"},
      {"theta negative", theta(-10000), "is -10000, but must be finite"},
      {"theta NaN", theta(kNaN), "must be finite"},
      {"theta Inf", theta(kInf), "must be finite"},
      {"theta integer", [](auto& b) { b.u32("llama.rope.freq_base", 10000); },
       "must be a floating-point number"},
  });
}

TEST("config: vocabulary sizes") {
  refuse({
      {"neither key", [](auto& b) { b.erase("tokenizer.ggml.tokens"); }, "are both missing"},
      {"no tokens", [](auto& b) { b.strings("tokenizer.ggml.tokens", {}); }, "has 0 tokens"},
      {"fewer rows than tokens", [](auto& b) { b.u32("llama.vocab_size", 4); },
       "is 4, fewer than the 5 tokens"},
      {"2^20 + 1", [](auto& b) { b.u32("llama.vocab_size", (1 << 20) + 1); }, "is 1048577, but must be"},
      {"tokens are numbers",
       [](auto& b) {
         b.ints("tokenizer.ggml.tokens", {1, 2});
       },
       "must be an array of strings"},
  });
  const ModelConfig no_tokens =
      changed([](auto& b) { b.erase("tokenizer.ggml.tokens").u32("llama.vocab_size", 7); });
  CHECK_EQ(no_tokens.vocab_size, 7);
}
