// SPDX-License-Identifier: Apache-2.0
// Hugging Face directories: the logits of the same checkpoint in GGUF to the last bit, shards, tokenizer
// files, and directories that are incomplete, pickled or hostile.
#include "model/hf_weights.h"

#include <filesystem>

#include "base/error.h"
#include "check.h"
#include "checkpoint_fixture.h"
#include "expect_error.h"
#include "reference.h"
#include "tokenizer/hf_vocab.h"
#include "tokenizer/sentencepiece.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;
namespace fs = std::filesystem;

namespace {

// A copy of swa16 that a test may change.
struct Checkpoint {
  TempDir dir;
  std::vector<TensorCopy> tensors = tensors_of("swa16");

  Checkpoint() { dir.write("config.json", read_vector_file("hf/swa16/config.json")); }
  std::string path() const { return dir.path(""); }
  void write_single() const { dir.write("model.safetensors", safetensors(tensors)); }
  void write_shards(const std::string& first = "model-00001-of-00002.safetensors") const {
    const std::vector<TensorCopy> head(tensors.begin(), tensors.begin() + 10);
    const std::vector<TensorCopy> tail(tensors.begin() + 10, tensors.end());
    dir.write("model-00001-of-00002.safetensors", safetensors(head));
    dir.write("model-00002-of-00002.safetensors", safetensors(tail));
    std::string map;
    for (size_t i = 0; i < tensors.size(); ++i)
      map += (i == 0 ? "\"" : ",\"") + tensors[i].name + "\":\"" +
             (i < 10 ? first : "model-00002-of-00002.safetensors") + "\"";
    dir.write("model.safetensors.index.json",
              to_bytes("{\"metadata\":{\"total_size\":1},\"weight_map\":{" + map + "}}"));
  }
  void refuse(ErrorCode code, const std::string& words) const {
    expect_error(words, code, words, [&] {
      const HfShards shards(path());
      HfWeights(shards, read_hf_config(path()));
    });
  }
};

}  // namespace

TEST("hf_weights: logits equal those of the GGUF file to the last bit") {
  for (const std::string name : {"swa16", "hd128"}) {
    const auto hf = load_hf(checkpoint_directory(name));
    const auto gguf = load_tiny("models/" + name + "-bf16.gguf");
    CHECK(same_bits(run_logits(*hf, tokens_below(512, 150)), run_logits(*gguf, tokens_below(512, 150))));
    CHECK_EQ(check_prompts(*hf, name), 8);
  }
}

TEST("hf_weights: 4-bit checkpoints of bitsandbytes") {
  CHECK_EQ(check_prompts(*load_hf(checkpoint_directory("swa16-nf4")), "swa16-nf4"), 2);
}

TEST("hf_weights: shards are one checkpoint") {
  const Checkpoint checkpoint;
  checkpoint.write_shards();
  const auto sharded = load_hf(checkpoint.path());
  const auto single = load_hf(checkpoint_directory("swa16"));
  CHECK(same_bits(run_logits(*sharded, tokens_below(512, 40)), run_logits(*single, tokens_below(512, 40))));
}

TEST("hf_weights: an index stays within its directory") {
  for (const std::string name :
       {"../model.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin", ""}) {
    const Checkpoint checkpoint;
    checkpoint.write_shards(name);
    checkpoint.refuse(ErrorCode::kModelFormat, "no name of a safetensors file");
  }
  const Checkpoint checkpoint;
  checkpoint.write_shards("model-00002-of-00002.safetensors");
  checkpoint.refuse(ErrorCode::kModelFormat, "is not in 'model-00002-of-00002.safetensors'");
}

TEST("hf_weights: tensors that are missing, wrong or too many") {
  Checkpoint checkpoint;
  const std::vector<TensorCopy> sound = checkpoint.tensors;
  checkpoint.tensors.pop_back();
  checkpoint.write_single();
  checkpoint.refuse(ErrorCode::kModelFormat, "'model.norm.weight' is missing");
  checkpoint.tensors = sound;
  checkpoint.tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {2}, std::vector<std::byte>(4)});
  checkpoint.write_single();
  checkpoint.refuse(ErrorCode::kModelUnsupported, "q_proj.bias', which is no part of a Mistral model");
  checkpoint.tensors.back().name = "model.layers.0.self_attn.rotary_emb.inv_freq";
  checkpoint.write_single();
  const HfShards shards(checkpoint.path());
  CHECK_EQ(HfWeights(shards, read_hf_config(checkpoint.path())).tensors().size(), 30u);
  checkpoint.tensors = sound;
  for (TensorCopy& tensor : checkpoint.tensors)
    if (tensor.name.find("k_proj") != std::string::npos) tensor.shape = {256, 64};
  checkpoint.write_single();
  checkpoint.refuse(ErrorCode::kModelFormat, "has shape 256 x 64, but the config demands 64 x 256");
  checkpoint.dir.write("model.safetensors", safetensors(sound, "I16"));
  checkpoint.refuse(ErrorCode::kModelUnsupported, "I16");
}

TEST("hf_weights: values that are no finite numbers are found when they are read") {
  const std::pair<const char*, int> cases[] = {{"model.layers.1.self_attn.k_proj.weight", 0x7fc0},
                                               {"model.layers.0.mlp.down_proj.weight", 0xff80},
                                               {"model.embed_tokens.weight", 0x7f80},
                                               {"model.layers.2.input_layernorm.weight", 0xffff},
                                               {"lm_head.weight", 0x7f81}};
  for (const auto& [name, bits] : cases) {
    Checkpoint checkpoint;
    for (TensorCopy& tensor : checkpoint.tensors)
      if (tensor.name == name) {
        const size_t cols = tensor.shape.back(), rows = tensor.shape.size() > 1 ? tensor.shape[0] : 1;
        const uint16_t value = uint16_t(bits);
        std::memcpy(tensor.bytes.data() + 2 * ((rows - 1) * cols + cols - 1), &value, sizeof value);
      }
    checkpoint.write_single();
    expect_error(name, ErrorCode::kModelFormat,
                 "of '" + std::string(name) + "' holds a value that is not a finite number",
                 [&] { load_hf(checkpoint.path()); });
  }
}

TEST("hf_weights: the head of a tied checkpoint is the embedding") {
  Checkpoint checkpoint;
  std::erase_if(checkpoint.tensors, [](const TensorCopy& tensor) { return tensor.name == "lm_head.weight"; });
  checkpoint.write_single();
  checkpoint.refuse(ErrorCode::kModelFormat, "'lm_head.weight' is missing");
  HfConfig config = read_hf_config(checkpoint.path());
  config.tied = true;
  const HfShards shards(checkpoint.path()), with_head(checkpoint_directory("swa16"));
  CHECK(HfWeights(shards, config).tensors().back().role == TensorRole::kFinalNorm);
  CHECK(HfWeights(with_head, config).tensors().back().role == TensorRole::kFinalNorm);
}

TEST("hf_weights: directories without safetensors files say what they have") {
  const Checkpoint checkpoint;
  checkpoint.refuse(ErrorCode::kModelFormat, "neither model.safetensors nor");
  checkpoint.dir.write("pytorch_model.bin", to_bytes("pickle"));
  checkpoint.refuse(ErrorCode::kModelUnsupported, "'pytorch_model.bin', a pickle file");
  fs::remove(checkpoint.dir.path("pytorch_model.bin"));
  checkpoint.dir.write("consolidated.00.pth", to_bytes("pickle"));
  checkpoint.refuse(ErrorCode::kModelUnsupported, "'consolidated.00.pth', a pickle file");
  fs::remove(checkpoint.dir.path("consolidated.00.pth"));
  const TempDir empty;
  CHECK_THROWS(read_hf_config(empty.path("")), ErrorCode::kModelFormat);
}

TEST("hf_vocab: tokenizer.model and the files beside it") {
  const Tokenizer hf(vocab_from_hf(checkpoint_directory("hd128")));
  const Tokenizer gguf(load_vocab("models/hd128-bf16.gguf"));
  CHECK(hf.vocab().pieces == gguf.vocab().pieces && hf.vocab().types == gguf.vocab().types);
  CHECK(hf.encode("the ship had sailed") == gguf.encode("the ship had sailed"));

  const TempDir dir;
  const std::string path = dir.path("");
  dir.write("tokenizer.model", read_vector_file("hf/hd128/tokenizer.model"));
  dir.write("config.json", to_bytes(R"({"eos_token_id":5})"));
  CHECK_EQ(vocab_from_hf(path).eos, 5);
  dir.write("generation_config.json", to_bytes(R"({"eos_token_id":[513,2]})"));
  CHECK_THROWS(vocab_from_hf(path), ErrorCode::kModelFormat);  // there is no token 513 yet
  dir.write("tokenizer_config.json",
            to_bytes(R"({"add_bos_token":false,"chat_template":"one","added_tokens_decoder":
      {"513":{"content":"<|im_end|>","special":true},"2":{"content":"</s>","special":true}}})"));
  dir.write("added_tokens.json", to_bytes(R"({"<|im_start|>":512})"));
  const Vocab vocab = vocab_from_hf(path);
  CHECK_EQ(vocab.size(), 514);
  CHECK_EQ(vocab.pieces[512], std::string("<|im_start|>"));
  CHECK(vocab.types[512] == PieceType::kControl && vocab.types[513] == PieceType::kControl);
  CHECK(vocab.ends_text(513) && vocab.ends_text(2) && !vocab.ends_text(3));
  CHECK(!vocab.add_bos && vocab.chat_template == "one");
  dir.write("chat_template.jinja", to_bytes("two"));
  CHECK_EQ(vocab_from_hf(path).chat_template, std::string("two"));
  dir.write("tokenizer_config.json", to_bytes(R"({"added_tokens_decoder":{"2":{"content":"other"}}})"));
  expect_error("renamed", ErrorCode::kModelFormat, "spells token 2", [&] { vocab_from_hf(path); });
}

TEST("hf_vocab: without a tokenizer there are token ids only") {
  expect_error("tokenizer", ErrorCode::kModelUnsupported, "has neither a tokenizer.model",
               [] { vocab_from_hf(checkpoint_directory("swa16")); });
  const Tokenizer ids(vocab_from_hf(checkpoint_directory("swa16"), 512));
  CHECK_EQ(ids.vocab().size(), 512);
  expect_error("text", ErrorCode::kModelUnsupported, "takes token ids only", [&] { ids.encode("text"); });
  CHECK_EQ(ids.decode(std::vector<int32_t>{1, 300, 2}), std::string());
  CHECK(ids.special_tokens().empty());
}
