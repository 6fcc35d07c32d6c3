// SPDX-License-Identifier: Apache-2.0
// LoRA adapters against the logits of PEFT, in all their kinds, and the independence of their bits.
#include <algorithm>
#include <cmath>

#include "adapter_builder.h"
#include "base/half.h"
#include "check.h"
#include "engine/open.h"
#include "gguf_builder.h"
#include "model/adapter_loader.h"
#include "model/gguf_weights.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string vectors(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

std::unique_ptr<const Adapter> load(Model& model, const std::string& path, float scale = 1.0f,
                                    const std::string& base = "") {
  return load_adapter(read_adapter_file(path, model.config()), scale, model,
                      [&] { return open_base_weights(base); }, {});
}

std::vector<float> logits_with(Model& model, const Adapter* adapter, std::span<const int32_t> tokens,
                               int chunk = 512, PageId first_page = 0) {
  Timeline timeline(first_page);
  timeline.adapter = adapter;
  return run_logits(model, tokens, chunk, timeline);
}

struct AdapterCase {
  std::string base, adapter;
};
const AdapterCase kCases[] = {
    {"swa16", "swa16-qv"}, {"swa16", "swa16-patterns"}, {"hd128", "hd128-all-rslora"}, {"full", "full-dora"}};

std::string base_file(const AdapterCase& c) { return "models/" + c.base + "-bf16.gguf"; }

}  // namespace

TEST("adapter: logits match PEFT's for q and v, patterns, rsLoRA on everything, and DoRA") {
  for (const AdapterCase& c : kCases) {
    const auto model = load_tiny(base_file(c));
    const auto adapter = load(*model, vectors("adapters/" + c.adapter), 1.0f, vectors(base_file(c)));
    const auto expected = read_vectors(c.adapter + ".adapter-vectors.safetensors");
    int prompts = 0;
    for (const auto& [key, logits] : expected) {
      const size_t suffix = key.find("logits");
      if (suffix == std::string::npos) continue;  // "len7.merged_logits" has the tokens of "len7.logits"
      const std::vector<int32_t> tokens = expected.at(key.substr(0, key.find('.')) + ".tokens").as<int32_t>();
      check_nmse(c.adapter + " " + key, logits_with(*model, adapter.get(), tokens), logits.as<float>(), 1e-5);
      // The adapter is no small change that the bound would hide.
      CHECK(nmse(logits_with(*model, nullptr, tokens), logits.as<float>()) > 1e-3);
      ++prompts;
    }
    CHECK_EQ(prompts, 3);
  }
}

static void check_bits(const AdapterCase& c) {
  const std::vector<int32_t> tokens = tokens_below(512, 90, 3);
  const auto run = [&](const TinyOptions& options, int chunk) {
    const auto model = load_tiny(base_file(c), options);
    const auto adapter = load(*model, vectors("adapters/" + c.adapter), 1.0f, vectors(base_file(c)));
    return logits_with(*model, adapter.get(), tokens, chunk);
  };
  const std::vector<float> want = run({.isa = "scalar"}, 90);
  for (const std::string& isa : available_isas())
    for (const int chunk : {1, 7, 64})
      if (isa != "scalar" || chunk == 7)
        if (!same_bits(run({isa, chunk == 7 ? 3 : 1}, chunk), want))
          fail(__FILE__, __LINE__, c.adapter + ": " + isa + ", chunks of " + std::to_string(chunk));
}

TEST("adapter: q and v have the same bits for every table, number of threads and cut of the prompt") {
  check_bits(kCases[0]);
}
TEST("adapter: patterns have the same bits for every table, number of threads and cut of the prompt") {
  check_bits(kCases[1]);
}
TEST("adapter: rsLoRA has the same bits for every table, number of threads and cut of the prompt") {
  check_bits(kCases[2]);
}
TEST("adapter: DoRA has the same bits for every table, number of threads and cut of the prompt") {
  check_bits(kCases[3]);
}

// Rows of different adapters and of none in one batch: what each gets is what it gets alone.
TEST("adapter: rows do not depend on the adapters of other rows") {
  const auto model = load_tiny("models/swa16-bf16.gguf", {.threads = 2});
  const auto one = load(*model, vectors("adapters/swa16-qv"));
  const auto two = load(*model, vectors("adapters/swa16-patterns"));
  PeftDirectory changed("swa16-patterns");
  changed.set("use_dora", "true");
  for (TensorCopy& tensor : std::vector<TensorCopy>(changed.tensors))
    if (tensor.name.ends_with("lora_B.weight"))
      changed.tensors.push_back(float_tensor(
          tensor.name.substr(0, tensor.name.size() - 13) + "lora_magnitude_vector", {tensor.shape[0]}, 2.0f));
  changed.write();
  const auto three = load(*model, changed.path(), 1.0f, vectors("models/swa16-bf16.gguf"));
  const Adapter* adapters[] = {nullptr, one.get(), one.get(), two.get(), nullptr, three.get(), two.get()};

  Batch batch;
  std::vector<std::vector<float>> want;
  std::vector<Timeline> timelines;
  std::vector<int32_t> rows;
  int32_t sequence = 0;
  for (const Adapter* adapter : adapters) {
    const std::vector<int32_t> tokens = tokens_below(512, 5 + 3 * sequence, sequence);
    want.push_back(logits_with(*model, adapter, tokens));
    timelines.emplace_back(sequence, 1);
    batch.sequences.push_back(
        {batch.n_rows(), int32_t(tokens.size()), 0, 0, timelines.back().pages, adapter});
    for (const int32_t token : tokens) {
      rows.push_back(batch.n_rows());
      batch.tokens.push_back(token);
    }
    ++sequence;
  }
  const std::span<const float> logits = model->forward(batch, rows, never_cancelled);
  for (size_t s = 0; s < want.size(); ++s) {
    const size_t first = size_t(batch.sequences[s].first_row) * 512;
    if (!same_bits(logits.subspan(first, want[s].size()), want[s]))
      fail(__FILE__, __LINE__, "sequence " + std::to_string(s) + " differs from what it is alone");
  }
}

TEST("adapter: a cancelled sequence leaves the rows of others their adapters") {
  const auto model = load_tiny("models/swa16-bf16.gguf");
  const auto one = load(*model, vectors("adapters/swa16-qv"));
  const auto two = load(*model, vectors("adapters/swa16-patterns"));
  const std::vector<int32_t> tokens = tokens_below(512, 9, 4);
  const std::vector<float> want = logits_with(*model, two.get(), tokens);
  const Timeline first(0, 1), second(1, 1);
  Batch batch;
  batch.tokens = {1, 2, 3};
  batch.sequences.push_back({0, 3, 0, 0, first.pages, one.get()});
  batch.sequences.push_back({3, 9, 0, 0, second.pages, two.get()});
  batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
  std::vector<int32_t> rows(9);
  for (int32_t i = 0; i < 9; ++i) rows[size_t(i)] = 3 + i;
  for (const int at : {0, 2, 3}) {
    int asked = 0;
    const std::span<const float> logits =
        model->forward(batch, rows, [&](size_t s) { return s == 0 && asked++ == at; });
    CHECK(same_bits(logits, want));
  }
}

// Each stage has the matrices of its own layers, the first one the embedding, the last one the head.
TEST("adapter: in a model of two stages the bits are those of one") {
  const auto whole = load_tiny("models/swa16-bf16.gguf");
  const MappedFile file(vectors("models/swa16-bf16.gguf"));
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  std::vector<Stage> stages;
  stages.push_back({make_cpu_backend({1, "", {}, {}}), 0, 1});
  stages.push_back({make_cpu_backend({1, "", {}, {}}), 1, config.n_layers});
  const auto split = load_model(GgufWeights(file, header, config), config, std::move(stages), {});
  split->prepare(
      512, {config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 64, config.sliding_window});
  PeftDirectory all("swa16-qv");
  all.set("modules_to_save", R"(["embed_tokens", "lm_head"])");
  all.tensors.push_back(float_tensor("base_model.model.model.embed_tokens.weight", {512, 256}, 1.0f));
  all.tensors.push_back(float_tensor("base_model.model.lm_head.weight", {512, 256}));
  all.write();
  const std::vector<int32_t> tokens = tokens_below(512, 40);
  for (const std::string& path : {vectors("adapters/swa16-patterns"), all.path()}) {
    const auto one = load(*whole, path), two = load(*split, path);
    CHECK_EQ(one->bytes(), two->bytes());
    CHECK(same_bits(logits_with(*split, two.get(), tokens, 30), logits_with(*whole, one.get(), tokens)));
  }
}

TEST("adapter: the scale multiplies what the adapter adds") {
  const auto model = load_tiny("models/swa16-bf16.gguf");
  const std::vector<int32_t> tokens = tokens_below(512, 20);
  PeftDirectory doubled("swa16-qv");
  doubled.set("lora_alpha", "16");
  doubled.write();
  const auto by_scale = load(*model, vectors("adapters/swa16-qv"), 2.0f);
  const auto by_alpha = load(*model, doubled.path());
  CHECK(same_bits(logits_with(*model, by_scale.get(), tokens), logits_with(*model, by_alpha.get(), tokens)));
  const auto none = load(*model, vectors("adapters/swa16-qv"), 0.0f);
  CHECK(nmse(logits_with(*model, none.get(), tokens), logits_with(*model, nullptr, tokens)) < 1e-12);
}

// GGUF adapters have the rows of Q and K in GGUF's order.
TEST("adapter: the GGUF file of a PEFT adapter has its bits") {
  const auto model = load_tiny("models/hd128-bf16.gguf");
  const AdapterFile peft = read_adapter_file(vectors("adapters/hd128-all-rslora"), model->config());
  GgufBuilder gguf;
  gguf.string("general.type", "adapter").string("general.architecture", "llama");
  gguf.string("adapter.type", "lora").f32("adapter.lora.alpha", 16.0f * std::sqrt(8.0f));  // rsLoRA, unfolded
  for (const AdapterDelta& delta : peft.deltas)
    for (const auto& [matrix, name] :
         {std::pair(delta.lora_a.get(), ".lora_a"), {delta.lora_b.get(), ".lora_b"}}) {
      Bytes data;
      for (const float x : read_finite(*matrix, name)) data.put(x);
      gguf.tensors.push_back(
          {delta.target.name + name, {uint64_t(matrix->cols), uint64_t(matrix->rows)}, 0, std::move(data)});
    }
  const TempDir dir;
  const auto from_gguf = load(*model, dir.write("adapter.gguf", gguf.build()));
  const auto from_peft = load(*model, vectors("adapters/hd128-all-rslora"));
  const std::vector<int32_t> tokens = tokens_below(512, 30);
  CHECK(nmse(logits_with(*model, from_gguf.get(), tokens), logits_with(*model, from_peft.get(), tokens)) <
        1e-12);
  CHECK_EQ(from_gguf->parameters, from_peft->parameters);
}

TEST("adapter: 16-bit values, also widened to 32 bits, take 16 bits of memory and give the same bits") {
  const auto model = load_tiny("models/swa16-bf16.gguf");
  PeftDirectory wide("swa16-qv");
  PeftDirectory narrow("swa16-qv");
  const std::vector<TensorCopy> exact = wide.tensors;
  for (size_t i = 0; i < wide.tensors.size(); ++i) {
    TensorCopy& tensor = wide.tensors[i];
    std::vector<std::byte> halves(tensor.bytes.size() / 2);
    for (size_t k = 0; k < halves.size() / 2; ++k) {
      const uint16_t half = f32_to_bf16(tensor.floats()[k]);
      tensor.floats()[k] = bf16_to_f32(half);
      std::memcpy(halves.data() + 2 * k, &half, 2);
    }
    narrow.tensors[i].dtype = "BF16";
    narrow.tensors[i].bytes = halves;
  }
  wide.write();
  narrow.write();
  const auto from_wide = load(*model, wide.path()), from_narrow = load(*model, narrow.path());
  const auto from_exact = load(*model, vectors("adapters/swa16-qv"));
  const std::vector<int32_t> tokens = tokens_below(512, 20);
  CHECK(same_bits(logits_with(*model, from_wide.get(), tokens),
                  logits_with(*model, from_narrow.get(), tokens)));
  CHECK_EQ(from_wide->bytes(), from_narrow->bytes());
  CHECK_EQ(from_exact->bytes(), 2 * from_wide->bytes());
}

// The same checkpoint with these matrices in place of its own.
TEST("adapter: modules_to_save and LoRA on the head are what a checkpoint with those matrices is") {
  const auto checkpoint_with = [](const std::vector<TensorCopy>& changed) {
    const TempDir dir;
    std::vector<TensorCopy> tensors = tensors_of("swa16");
    for (TensorCopy& tensor : tensors)
      for (const TensorCopy& other : changed)
        if (tensor.name == other.name) tensor = other;
    dir.write("config.json", read_vector_file("hf/swa16/config.json"));
    dir.write("model.safetensors", safetensors(tensors));
    return load_hf(dir.path(""));
  };
  const auto model = load_tiny("models/swa16-bf16.gguf");
  const std::vector<int32_t> tokens = tokens_below(512, 30);
  TensorCopy embedding = float_tensor("model.embed_tokens.weight", {512, 256}, 1.0f);
  TensorCopy head = float_tensor("lm_head.weight", {512, 256});

  PeftDirectory whole("swa16-qv");
  whole.set("modules_to_save", R"(["embed_tokens", "lm_head"])");
  for (TensorCopy tensor : {embedding, head}) {
    tensor.name = "base_model.model." + tensor.name;
    whole.tensors.push_back(tensor);
  }
  whole.write();
  const auto with_whole = load(*model, whole.path());
  const auto other = checkpoint_with({embedding, head});
  const auto qv = load(*other, vectors("adapters/swa16-qv"));
  CHECK(same_bits(logits_with(*model, with_whole.get(), tokens), logits_with(*other, qv.get(), tokens)));

  PeftDirectory on_head("swa16-qv");
  on_head.set("target_modules", R"(["lm_head"])");
  const TensorCopy a = float_tensor("base_model.model.lm_head.lora_A.weight", {4, 256}),
                   b = float_tensor("base_model.model.lm_head.lora_B.weight", {512, 4}, 0.2f);
  on_head.tensors = {a, b};
  on_head.write();
  const auto with_head = load(*model, on_head.path());
  TensorCopy merged{"lm_head.weight", {512, 256}, std::vector<std::byte>(512 * 256 * 4), "F32"};
  for (const TensorCopy& tensor : tensors_of("swa16"))
    if (tensor.name == "lm_head.weight")
      for (size_t i = 0; i < 512 * 256; ++i) {
        uint16_t half;
        std::memcpy(&half, tensor.bytes.data() + 2 * i, 2);
        float sum = bf16_to_f32(half);
        for (size_t k = 0; k < 4; ++k)  // lora_alpha 8, r 4
          sum += 2.0f * TensorCopy(b).floats()[i / 256 * 4 + k] * TensorCopy(a).floats()[k * 256 + i % 256];
        merged.floats()[i] = sum;
      }
  const std::vector<float> want = run_logits(*checkpoint_with({merged}), tokens);
  check_nmse("LoRA on the head", logits_with(*model, with_head.get(), tokens), want, 1e-10);
  CHECK(nmse(run_logits(*model, tokens), want) > 1e-3);
}
