// SPDX-License-Identifier: Apache-2.0
// Adapters that are damaged, hostile, made for another model, or more than is supported: each is refused with
// ERR_ADAPTER and a sentence that names the cause.
#include <limits>

#include "adapter_builder.h"
#include "check.h"
#include "engine/open.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "model/adapter_loader.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

struct Base {
  std::unique_ptr<Model> model = load_tiny("models/swa16-bf16.gguf");

  void refuse(const std::string& path, const std::string& words) const {
    const std::string message = expect_error(words, ErrorCode::kAdapter, words, [&] {
      load_adapter(read_adapter_file(path, model->config()), 1.0f, *model,
                   [] { return open_base_weights(std::string(test::kVectors) + "/models/swa16-bf16.gguf"); },
                   {});
    });
    CHECK(message.find(path) != std::string::npos);
  }
  void refuse(const PeftDirectory& adapter, const std::string& words) const {
    adapter.write();
    refuse(adapter.path(), words);
  }
};

TensorCopy renamed(TensorCopy tensor, const std::string& name) {
  tensor.name = name;
  return tensor;
}

}  // namespace

TEST("adapter_hostile: configurations that ask for what is not supported") {
  const Base base;
  const std::pair<const char*, const char*> fields[] = {
      {"use_qalora", "true"},
      {"use_bdlora", "true"},
      {"layer_replication", "[[0, 2]]"},
      {"target_parameters", "[\"x\"]"},
      {"trainable_token_indices", "[3]"},
      {"alora_invocation_tokens", "[1, 2]"},
      {"monteclora_config", "{\"a\": 1}"},
      {"kasa_config", "{\"a\": 1}"},
      {"velora_config", "{\"a\": 1}"},
      {"arrow_config", "{\"a\": 1}"},
      {"megatron_config", "{\"a\": 1}"},
      {"ensure_weight_tying", "true"},
      {"lora_bias", "true"},
      {"bias", "\"all\""},
      {"peft_type", "\"LOHA\""},
      {"init_lora_weights", "\"pissa_niter_4\""},
      {"init_lora_weights", "\"olora\""},
      {"init_lora_weights", "\"loftq\""},
      {"layers_pattern", "\"h\""},
      {"modules_to_save", R"(["embed_tokens", "score"])"},
      {"rank_pattern", R"({".*q_proj": 4})"},
      {"alpha_pattern", R"({"(q|v)_proj": 4})"},
  };
  for (const auto& [field, value] : fields) {
    PeftDirectory adapter("swa16-qv");
    adapter.set(field, value);
    base.refuse(adapter, std::string("'") + field + "' of adapter_config.json");
  }
  for (const char* init : {"\"gaussian\"", "\"eva\"", "false", "null"}) {  // those are plain LoRA
    PeftDirectory adapter("swa16-qv");
    adapter.set("init_lora_weights", init);
    adapter.set("fan_in_fan_out", "true");  // of the base's layout: Mistral's matrices are never transposed
    adapter.write();
    CHECK_EQ(read_adapter_file(adapter.path(), base.model->config()).deltas.size(), 6u);
  }
}

TEST("adapter_hostile: configurations that are damaged") {
  const Base base;
  const std::pair<const char*, const char*> fields[] = {
      {"r", "0"},
      {"r", "\"4\""},
      {"r", "1.5"},
      {"lora_alpha", "0"},
      {"lora_alpha", "1e999"},
      {"lora_alpha", "\"8\""},
      {"use_dora", "1"},
      {"target_modules", "7"},
      {"target_modules", "[1]"},
      {"rank_pattern", "[]"},
      {"rank_pattern", R"({"q_proj": 0})"},
      {"layers_to_transform", "[-1]"},
  };
  for (const auto& [field, value] : fields) {
    PeftDirectory adapter("swa16-qv");
    adapter.set(field, value);
    base.refuse(adapter, field == std::string("lora_alpha") && value == std::string("1e999")
                             ? "adapter"  // the JSON reader refuses such a number itself
                             : std::string("'") + field + "' of adapter_config.json");
  }
  PeftDirectory adapter("swa16-qv");
  adapter.config = "[]";
  base.refuse(adapter, "no JSON object");
  adapter.config = "{\"peft_type\":";
  base.refuse(adapter, "adapter '");
  adapter.config = std::string(100000, '[');
  base.refuse(adapter, "adapter '");
}

TEST("adapter_hostile: what the configuration names and what the file holds must be the same") {
  const Base base;
  PeftDirectory adapter("swa16-qv");
  adapter.set("target_modules", R"(["q_proj", "v_proj", "k_proj"])");
  base.refuse(adapter, "names 'model.layers.0.self_attn.k_proj', but");
  adapter.set("target_modules", R"(["q_proj"])");
  base.refuse(adapter, "'model.layers.0.self_attn.v_proj', which adapter_config.json does not name");
  adapter.set("target_modules", R"(["q_proj", "v_proj"])");
  adapter.set("layers_to_transform", "[0, 2]");
  base.refuse(adapter, "'model.layers.1.self_attn.q_proj', which adapter_config.json does not name");
  adapter.set("layers_to_transform", "null");
  adapter.set("exclude_modules", R"(["model.layers.2.self_attn.q_proj"])");
  base.refuse(adapter, "'model.layers.2.self_attn.q_proj', which adapter_config.json does not name");
  adapter.set("exclude_modules", "null");
  adapter.set("modules_to_save", R"(["lm_head"])");
  base.refuse(adapter, "names 'lm_head', but adapter_model.safetensors has nothing for it");
  adapter.set("modules_to_save", "null");
  adapter.set("use_dora", "true");
  base.refuse(adapter, "has no lora_magnitude_vector, but adapter_config.json says use_dora: true");
  adapter.set("use_dora", "false");
  adapter.set("target_modules", "\"all-linear\"");  // says nothing about names
  adapter.write();
  CHECK_EQ(read_adapter_file(adapter.path(), base.model->config()).deltas.size(), 6u);
}

TEST("adapter_hostile: tensors that are missing, wrong, foreign or not finite") {
  const Base base;
  const PeftDirectory sound("swa16-qv");
  const auto with = [&](const std::string& words, const auto& change) {
    PeftDirectory adapter("swa16-qv");
    change(adapter);
    base.refuse(adapter, words);
  };
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj";
  with("has no lora_B", [](PeftDirectory& a) { a.tensors.erase(a.tensors.begin() + 1); });
  with("has no lora_A", [](PeftDirectory& a) { a.tensors.erase(a.tensors.begin()); });
  with("names 'model.layers.0.self_attn.q_proj', but",
       [](PeftDirectory& a) { a.tensors.erase(a.tensors.begin(), a.tensors.begin() + 2); });
  with("there twice",
       [&](PeftDirectory& a) { a.tensors.push_back(renamed(a.tensors[0], q + ".lora_A.default.weight")); });
  with("is none that is supported",
       [&](PeftDirectory& a) { a.tensors.push_back(float_tensor(q + ".lora_B.bias", {256})); });
  with("not named as PEFT names tensors", [&](PeftDirectory& a) {
    a.tensors.push_back(float_tensor("layers.0.attention.wq.lora_A.weight", {4}));
  });
  with("LoRA on the embedding", [&](PeftDirectory& a) {
    a.tensors.push_back(float_tensor("base_model.model.model.embed_tokens.lora_embedding_A", {4, 512}));
  });
  with("a copy of a base matrix", [&](PeftDirectory& a) {
    a.tensors.push_back(float_tensor("base_model.model.model.embed_tokens.base_layer.weight", {512, 256}));
  });
  with("only embed_tokens and lm_head are supported", [&](PeftDirectory& a) {
    a.tensors.push_back(float_tensor("base_model.model.model.norm.weight", {256}));
  });
  with("'model.layers.3.self_attn.q_proj', which the base model does not have", [&](PeftDirectory& a) {
    a.tensors.push_back(
        float_tensor("base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", {4, 256}));
  });
  with("'score', which the base model does not have", [&](PeftDirectory& a) {
    a.tensors.push_back(float_tensor("base_model.model.score.weight", {2, 256}));
  });
  with("has shape 514 x 256, but", [&](PeftDirectory& a) {  // tokens that the base does not know
    a.tensors.push_back(float_tensor("base_model.model.lm_head.weight", {514, 256}));
  });
  with("has shape 8 x 256, but", [&](PeftDirectory& a) {
    a.tensors[0] = float_tensor(q + ".lora_A.weight", {8, 256});
  });
  with("has shape 4 x 128, but", [&](PeftDirectory& a) {
    a.tensors[0] = float_tensor(q + ".lora_A.weight", {4, 128});
  });
  with("has shape 1024, but", [&](PeftDirectory& a) { a.tensors[0].shape = {1024}; });
  with("has shape 4 x 256, but", [&](PeftDirectory& a) {  // rank_pattern says otherwise
    a.set("rank_pattern", R"({"layers.0.self_attn.q_proj": 2})");
  });
  with("I32", [&](PeftDirectory& a) { a.tensors[0].dtype = "I32"; });
  with("more than 1024", [&](PeftDirectory& a) {
    a.set("rank_pattern", R"({"layers.0.self_attn.q_proj": 2000})");
    a.tensors[0] = float_tensor(q + ".lora_A.weight", {2000, 256});
    a.tensors[1] = float_tensor(q + ".lora_B.weight", {256, 2000});
  });
  with("is empty", [](PeftDirectory& a) {
    a.tensors.clear();
    a.set("target_modules", "\"all-linear\"");
  });
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    with("element 7 of row 0 of lora_a of 'blk.0.attn_q.weight' is not a finite number",
         [&](PeftDirectory& a) { a.find("q_proj.lora_A").floats()[7] = bad; });
    with("element 1 of row 63 of lora_b of 'blk.2.attn_v.weight' is not a finite number",
         [&](PeftDirectory& a) { a.find("layers.2.self_attn.v_proj.lora_B").floats()[63 * 4 + 1] = bad; });
    with("row 3 of the adapter's own 'output.weight' holds a value that is not a finite number",
         [&](PeftDirectory& a) {
           a.tensors.push_back(float_tensor("base_model.model.lm_head.weight", {512, 256}));
           a.tensors.back().floats()[3 * 256] = bad;
         });
  }
}

TEST("adapter_hostile: adapters of other models") {
  const Base base;
  for (const char* other : {"hd128-all-rslora", "full-dora"}) {
    const PeftDirectory adapter(other);
    base.refuse(adapter, "and the base model demand");
  }
}

TEST("adapter_hostile: safetensors files that are cut, overlap or lie about their size") {
  const Base base;
  PeftDirectory adapter("swa16-qv");
  adapter.write();
  const std::vector<std::byte> sound = safetensors(adapter.tensors);
  const auto refuse = [&](const std::vector<std::byte>& file, const std::string& words) {
    adapter.dir.write("adapter_model.safetensors", file);
    base.refuse(adapter.path(), words);
  };
  refuse({sound.begin(), sound.end() - 1}, "bytes");
  refuse({sound.begin(), sound.begin() + 100}, "the header claims");
  refuse({sound.begin(), sound.begin() + 7}, "too short");
  std::vector<std::byte> bomb = sound;
  const uint64_t huge = uint64_t{1} << 62;
  std::memcpy(bomb.data(), &huge, 8);
  refuse(bomb, "more than the limit");
  // The second tensor lies on the first one.
  std::string header;
  uint64_t length;
  std::memcpy(&length, sound.data(), 8);
  for (size_t i = 0; i < length; ++i) header += char(sound[8 + i]);
  const size_t at = header.find("[4096,8192]");
  CHECK(at != std::string::npos);
  std::vector<std::byte> overlapping = sound;
  std::memcpy(overlapping.data() + 8 + at, "[0000,4096]", 11);
  refuse(overlapping, "");  // JSON forbids the zeros, so the next one is the real test
  std::memcpy(overlapping.data() + 8 + at, "[4095,8191]", 11);
  refuse(overlapping, "overlaps");
  // Every prefix of the header and every flipped byte of it: an error or an adapter, never anything else.
  for (size_t i = 0; i < 8 + length; i += 3) {
    std::vector<std::byte> flipped = sound;
    flipped[i] ^= std::byte{0x11};
    adapter.dir.write("adapter_model.safetensors", flipped);
    try {
      read_adapter_file(adapter.path(), base.model->config());
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kAdapter);
    }
  }
}

TEST("adapter_hostile: directories and files that are no adapters") {
  const Base base;
  const TempDir dir;
  const std::string path = dir.path("");
  base.refuse(path, "holds no adapter_config.json");
  dir.write("adapter_config.json", to_bytes(PeftDirectory("swa16-qv").config));
  base.refuse(path, "holds no adapter_model.safetensors");
  dir.write("adapter_model.bin", to_bytes("pickle"));
  base.refuse(path, "a pickle file");
  base.refuse(dir.write("file", to_bytes("no adapter")), "adapter '");
  base.refuse(std::string(test::kVectors) + "/models/swa16-bf16.gguf", "'general.type'");
  CHECK_THROWS(read_adapter_file(dir.path("nothing"), base.model->config()), ErrorCode::kInvalidArg);
}

TEST("adapter_hostile: GGUF adapters") {
  const Base base;
  const TempDir dir;
  const auto sound = [] {
    GgufBuilder b;
    b.string("general.type", "adapter").string("general.architecture", "llama");
    b.string("adapter.type", "lora").f32("adapter.lora.alpha", 8.0f);
    b.tensor("blk.0.attn_q.weight.lora_a", {256, 4}).tensor("blk.0.attn_q.weight.lora_b", {4, 256});
    return b;
  };
  const auto refuse = [&](const GgufBuilder& builder, const std::string& words) {
    base.refuse(dir.write("adapter.gguf", builder.build()), words);
  };
  CHECK_EQ(read_adapter_file(dir.write("adapter.gguf", sound().build()), base.model->config()).deltas.size(),
           1u);
  refuse(sound().string("general.type", "model"), "'general.type' is 'model'");
  refuse(sound().string("general.architecture", "gemma"), "'general.architecture' is 'gemma'");
  refuse(sound().string("adapter.type", "alora"), "'adapter.type' is 'alora'");
  refuse(sound().ints("adapter.alora.invocation_tokens", {1}), "aLoRA");
  refuse(sound().tensor("blk.0.attn_q.weight", {256, 256}), "neither a lora_a nor a lora_b");
  refuse(sound().tensor("blk.0.attn_k.weight.lora_a", {256, 4}), "'blk.0.attn_k.weight' has no lora_b");
  refuse(sound().tensor("blk.9.attn_k.weight.lora_a", {256, 4}), "does not have");
  refuse(sound().tensor("token_embd.weight.lora_a", {256, 4}).tensor("token_embd.weight.lora_b", {4, 512}),
         "'token_embd.weight', which is not supported");
  GgufBuilder narrow = sound();
  narrow.tensors.clear();
  narrow.tensor("blk.0.attn_q.weight.lora_a", {128, 4}).tensor("blk.0.attn_q.weight.lora_b", {4, 256});
  refuse(narrow, "has 4 rows of 128, but the base model demands 4 of 256");
  GgufBuilder uneven = sound();
  uneven.tensors.clear();
  uneven.tensor("blk.0.attn_q.weight.lora_a", {256, 8}).tensor("blk.0.attn_q.weight.lora_b", {4, 256});
  refuse(uneven, "has 8 rows of 256, but the base model demands 4 of 256");
  GgufBuilder empty = sound();
  empty.tensors.clear();
  refuse(empty, "is empty");
}
