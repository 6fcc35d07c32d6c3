// SPDX-License-Identifier: Apache-2.0
// Adapters folded into the weights: the logits of PEFT's own merge, types that are kept, and what cannot be
// merged.
#include "engine/merge_adapter.h"

#include <cmath>
#include <filesystem>
#include <limits>

#include "adapter_builder.h"
#include "check.h"
#include "engine/model_source.h"
#include "expect_error.h"
#include "model/adapter_file.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string vectors(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

WrittenModel merge(const std::string& base, const std::string& adapter, const std::string& out,
                   const std::string& type = "", float scale = 1.0f) {
  return merge_adapter(base, out, {.adapter = adapter, .scale = scale, .type = type, .threads = 2}, {});
}

}  // namespace

TEST("merge_adapter: in binary32 the logits are those of PEFT's merged weights") {
  const std::pair<const char*, const char*> cases[] = {{"swa16", "swa16-qv"},
                                                       {"swa16", "swa16-patterns"},
                                                       {"hd128", "hd128-all-rslora"},
                                                       {"full", "full-dora"}};
  for (const auto& [base, adapter] : cases) {
    const TempDir dir;
    const std::string out = dir.path("merged.gguf");
    const WrittenModel written = merge(vectors("models/" + std::string(base) + "-bf16.gguf"),
                                       vectors("adapters/" + std::string(adapter)), out, "f32");
    CHECK_EQ(written.relative_error, 0.0);
    const auto expected = read_vectors(std::string(adapter) + ".adapter-vectors.safetensors");
    const std::vector<int32_t> tokens = expected.at("len7.tokens").as<int32_t>();
    check_nmse(adapter, run_logits(*load_source(out), tokens), expected.at("len7.merged_logits").as<float>(),
               1e-5);
  }
}

TEST("merge_adapter: matrices keep their types, and those that the adapter leaves alone their bytes") {
  const TempDir dir;
  const std::string base = vectors("models/hd128-q4_k_m.gguf"), out = dir.path("merged.gguf");
  PeftDirectory adapter("hd128-all-rslora");
  adapter.set("target_modules", R"(["k_proj"])");
  std::erase_if(adapter.tensors,
                [](const TensorCopy& tensor) { return tensor.name.find("k_proj") == std::string::npos; });
  adapter.write();
  const WrittenModel written = merge(base, adapter.path(), out);
  const std::string exact = dir.path("exact.gguf");
  merge(base, adapter.path(), exact, "f32");
  const auto before = open_model_source(ModelPath(base)), after = open_model_source(ModelPath(out));
  int changed = 0;
  for (const ModelTensor& tensor : before->weights().tensors()) {
    const auto old_rows = before->weights().open(tensor), new_rows = after->weights().open(tensor);
    CHECK(old_rows->type == new_rows->type);
    std::vector<std::byte> one(size_t(tensor.rows) * row_bytes(old_rows->type, uint64_t(tensor.cols))),
        two(one.size());
    old_rows->read_rows(0, tensor.rows, one.data());
    new_rows->read_rows(0, tensor.rows, two.data());
    if (one == two) continue;
    CHECK(tensor.role == TensorRole::kK);
    ++changed;
  }
  CHECK_EQ(changed, 2);
  const auto merged = open_model_source(ModelPath(exact));
  double error = 0, power = 0;
  for (const ModelTensor& tensor : merged->weights().tensors()) {
    if (tensor.role != TensorRole::kK) continue;
    const std::vector<float> is = read_finite(*after->weights().open(tensor), "k"),
                             should = read_finite(*merged->weights().open(tensor), "k");
    for (size_t i = 0; i < is.size(); ++i) {
      error += std::pow(double(is[i]) - double(should[i]), 2);
      power += std::pow(double(should[i]), 2);
    }
  }
  CHECK(std::fabs(written.relative_error / std::sqrt(error / power) - 1) < 1e-9);
  CHECK(after->config().sliding_window == 64 && after->vocab().pieces == before->vocab().pieces);
}

TEST("merge_adapter: a head of the adapter's own takes the place of the model's") {
  const TempDir dir;
  const std::string out = dir.path("merged.gguf");
  PeftDirectory adapter("swa16-qv");
  const TensorCopy head = float_tensor("base_model.model.lm_head.weight", {512, 256});
  adapter.tensors.push_back(head);
  adapter.write();
  merge(vectors("models/swa16-bf16.gguf"), adapter.path(), out, "f32");
  const auto source = open_model_source(ModelPath(out));
  const ModelTensor& tensor = source->weights().tensors().back();
  CHECK(tensor.role == TensorRole::kOutput);
  std::vector<std::byte> rows(512 * 256 * 4);
  source->weights().open(tensor)->read_rows(0, 512, rows.data());
  CHECK(rows == head.bytes);
}

TEST("merge_adapter: 4-bit matrices of bitsandbytes become what they were") {
  const TempDir dir;
  const std::string out = dir.path("merged.gguf"), base = dir.path("base");
  std::filesystem::copy(vectors("hf/hd128-nf4-double"), base);
  std::filesystem::copy(vectors("hf/hd128/tokenizer.model"), base);
  merge(base, vectors("adapters/hd128-all-rslora"), out);
  const auto source = open_model_source(ModelPath(out));
  for (const ModelTensor& tensor : source->weights().tensors()) {
    const QuantType type = source->weights().type(tensor);
    CHECK_EQ(quant_traits(type).items_per_block, 1u);
    // The checkpoint has them in BF16, but other readers of GGUF files compute with F32 only.
    if (tensor.is_norm()) CHECK(type == QuantType::kF32);
  }
}

TEST("merge_adapter: in a tied model the embedding and the head are one") {
  const TempDir dir;
  const std::string base = dir.path("base"), out = dir.path("merged.gguf");
  copy_tied("hd128", base);
  for (const char* module : {"embed_tokens", "lm_head"}) {
    PeftDirectory adapter("hd128-all-rslora");
    adapter.set("modules_to_save", "[\"" + std::string(module) + "\"]");
    const std::string prefix = module == std::string("lm_head") ? "" : "model.";
    adapter.tensors.push_back(float_tensor("base_model.model." + prefix + module + ".weight", {512, 256}));
    adapter.write();
    merge(vectors("hf/hd128"), adapter.path(), out);
    expect_error(module, ErrorCode::kAdapter, "but the model computes its logits with the embedding",
                 [&] { merge(base, adapter.path(), dir.path("tied.gguf")); });
  }
}

TEST("merge_adapter: what cannot be merged leaves nothing behind") {
  const TempDir dir;
  const std::string out = dir.path("merged.gguf"), base = vectors("models/swa16-bf16.gguf");
  const auto refuse = [&](ErrorCode code, const std::string& words, const auto& body) {
    expect_error(words, code, words, body);
    CHECK(!std::filesystem::exists(out));
  };
  refuse(ErrorCode::kAdapter, "and the base model demand",
         [&] { merge(base, vectors("adapters/full-dora"), out); });
  refuse(ErrorCode::kInvalidArg, "is no type to quantise to",
         [&] { merge(base, vectors("adapters/swa16-qv"), out, "q9"); });
  refuse(ErrorCode::kInvalidArg, "GGUF files cannot hold 'nf4'",
         [&] { merge(base, vectors("adapters/swa16-qv"), out, "nf4"); });
  PeftDirectory bad("swa16-qv");
  bad.tensors[0].floats()[5] = std::numeric_limits<float>::quiet_NaN();
  bad.write();
  refuse(ErrorCode::kAdapter, "is not a finite number", [&] { merge(base, bad.path(), out); });
  refuse(ErrorCode::kInvalidArg, "cannot be quantised to IQ4_NL",
         [&] { merge(vectors("models/hd128-iq4_nl.gguf"), vectors("adapters/hd128-all-rslora"), out); });
  const std::string copy = dir.path("copy.gguf");
  std::filesystem::copy_file(base, copy);
  expect_error("itself", ErrorCode::kInvalidArg, "is a file of the model",
               [&] { merge(copy, vectors("adapters/swa16-qv"), copy); });
}
