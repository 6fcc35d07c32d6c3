// SPDX-License-Identifier: Apache-2.0
// params.json, and directories in Mistral's own layout: the logits of the same checkpoint in Hugging Face's.
#include "model/mistral_config.h"

#include "base/error.h"
#include "check.h"
#include "checkpoint_fixture.h"
#include "expect_error.h"
#include "model/model_tensors.h"
#include "reference.h"
#include "tokenizer/hf_vocab.h"
#include "tokenizer/sentencepiece.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

const std::string kShape =
    R"("dim":256,"n_layers":3,"head_dim":32,"hidden_dim":256,"n_heads":8,"n_kv_heads":2,"norm_eps":1e-05,)"
    R"("vocab_size":512)";

ModelConfig read(const std::string& more) {
  return config_from_mistral(Json::parse("{" + kShape + (more.empty() ? "" : "," + more) + "}")).model;
}
void refuse(const std::string& more, ErrorCode code, const std::string& words) {
  expect_error(more, code, words, [&] { read(more); });
}

// The tensors of swa16 as mistral-inference stores them: its names, and Q and K in the order of interleaved
// RoPE.
std::vector<TensorCopy> native_tensors() {
  const HfConfig config = read_hf_config(checkpoint_directory("swa16"));
  const HfShards shards(checkpoint_directory("swa16"));
  const HfWeights weights(shards, config);
  std::vector<TensorCopy> out;
  for (const ModelTensor& tensor : weights.tensors()) {
    const auto source = weights.open(tensor);
    std::vector<std::byte> bytes(size_t(tensor.rows * tensor.cols) * 2);
    source->read_rows(0, tensor.rows, bytes.data());
    std::vector<uint64_t> shape{uint64_t(tensor.rows), uint64_t(tensor.cols)};
    if (tensor.is_norm()) shape.erase(shape.begin());
    out.push_back({mistral_tensor_name(tensor), shape, std::move(bytes)});
  }
  return out;
}

}  // namespace

TEST("mistral_config: numbers, and what the releases leave out") {
  const ModelConfig c = read("");
  CHECK(c.dim == 256 && c.hidden_dim == 256 && c.n_layers == 3 && c.n_heads == 8 && c.n_kv_heads == 2);
  CHECK(c.head_dim == 32 && c.vocab_size == 512 && c.norm_eps == 1e-5f && c.context_length == 32768);
  CHECK_EQ(c.sliding_window, 0);
  CHECK_EQ(c.rope_theta, 1e6);
  CHECK_EQ(read(R"("sliding_window":4096)").rope_theta, 1e4);
  CHECK_EQ(read(R"("sliding_window":4096,"rope_theta":7)").rope_theta, 7.0);
  CHECK_EQ(read(R"("max_seq_len":100)").context_length, 100);
}

TEST("mistral_config: a window, one for all layers, none") {
  CHECK_EQ(read(R"("sliding_window":16)").sliding_window, 16);
  CHECK_EQ(read(R"("sliding_window":[16,16,16])").sliding_window, 16);
  CHECK_EQ(read(R"("_sliding_window":16)").sliding_window, 16);
  CHECK_EQ(read(R"("sliding_window":null)").sliding_window, 0);
  CHECK_EQ(read(R"("sliding_window":[null,null])").sliding_window, 0);
  refuse(R"("sliding_window":[16,null])", ErrorCode::kModelUnsupported, "list of different windows");
  refuse(R"("sliding_window":[])", ErrorCode::kModelFormat, "empty list");
  refuse(R"("sliding_window":0)", ErrorCode::kModelFormat, "'sliding_window' of params.json");
  refuse(R"("sliding_window":"16")", ErrorCode::kModelFormat, "neither null nor");
}

TEST("mistral_config: what is missing, damaged or not Mistral 7B") {
  for (const std::string field : {"dim", "n_layers", "hidden_dim", "n_heads", "norm_eps", "vocab_size"}) {
    std::string text = "{" + kShape + "}";
    text.replace(text.find("\"" + field), 2, "\"x");
    expect_error(field, ErrorCode::kModelFormat, "'" + field + "' of params.json is missing",
                 [&] { config_from_mistral(Json::parse(text)); });
  }
  refuse(R"("moe":{"num_experts":8})", ErrorCode::kModelUnsupported, "'moe'");
  refuse(R"("rope_theta":-1)", ErrorCode::kModelFormat, "above 0");
  CHECK_EQ(read(R"("moe":null)").dim, 256);
  CHECK_THROWS(config_from_mistral(Json::parse("[]")), ErrorCode::kModelFormat);
}

TEST("mistral_config: consolidated weights give the logits of the Hugging Face directory") {
  const auto hf = load_hf(checkpoint_directory("swa16"));
  const auto expected = run_logits(*hf, tokens_below(512, 60));
  const std::vector<TensorCopy> tensors = native_tensors();
  const TempDir dir;
  dir.write("params.json", to_bytes("{" + kShape + R"(,"sliding_window":[16],"rope_theta":10000.0})"));
  dir.write("consolidated.safetensors", safetensors(tensors));
  CHECK(read_hf_config(dir.path("")).native);
  CHECK(same_bits(run_logits(*load_hf(dir.path("")), tokens_below(512, 60)), expected));

  const TempDir shards;
  shards.write("params.json", to_bytes("{" + kShape + R"(,"sliding_window":16})"));
  shards.write("consolidated-00001-of-00002.safetensors",
               safetensors({tensors.begin(), tensors.begin() + 9}));
  shards.write("consolidated-00002-of-00002.safetensors", safetensors({tensors.begin() + 9, tensors.end()}));
  CHECK(same_bits(run_logits(*load_hf(shards.path("")), tokens_below(512, 60)), expected));
}

TEST("mistral_config: Hugging Face's layout goes first, and each needs its config") {
  const TempDir dir;
  dir.write("consolidated.safetensors", safetensors(native_tensors()));
  expect_error("no params", ErrorCode::kModelFormat, "has no params.json",
               [&] { read_hf_config(dir.path("")); });
  dir.write("params.json", to_bytes("{" + kShape + "}"));
  dir.write("config.json", read_vector_file("hf/swa16/config.json"));
  CHECK(read_hf_config(dir.path("")).native);
  dir.write("model.safetensors", read_vector_file("hf/swa16/model.safetensors"));
  CHECK(!read_hf_config(dir.path("")).native);

  const TempDir pickled;
  pickled.write("params.json", to_bytes("{" + kShape + "}"));
  pickled.write("consolidated.00.pth", to_bytes("pickle"));
  expect_error("pickle", ErrorCode::kModelUnsupported, "'consolidated.00.pth', a pickle file", [&] {
    CHECK_EQ(read_hf_config(pickled.path("")).model.dim, 256);
    HfShards{pickled.path("")};
  });
}

TEST("mistral_config: the tokenizer under Mistral's own name") {
  const TempDir dir;
  dir.write("tokenizer.model.v3", read_vector_file("tokenizers/tokenizer.model.v3"));
  CHECK(Tokenizer(vocab_from_hf(dir.path(""))).encode("Hello world") == (std::vector<int32_t>{23325, 2294}));
}
