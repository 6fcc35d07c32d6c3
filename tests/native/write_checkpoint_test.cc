// SPDX-License-Identifier: Apache-2.0
// Hugging Face directories that are written: the logits of the GGUF file of the same weights, bit for bit,
// the vocabulary and the files beside it, shards, and nothing when it fails.
#include "engine/write_checkpoint.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "adapter_builder.h"
#include "base/json.h"
#include "check.h"
#include "engine/merge_adapter.h"
#include "expect_error.h"
#include "io/text_file.h"
#include "model/merged_weights.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string vectors(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

WrittenModel merge(const std::string& base, const std::string& adapter, const std::string& out,
                   const std::string& type, MergeFormat format) {
  return merge_adapter(base, out, {.adapter = adapter, .type = type, .format = format, .threads = 2}, {});
}

// Merges into both formats, which must be the same model.
void check_same(const std::string& base, const std::string& adapter, const std::string& type) {
  const TempDir dir;
  const std::string gguf = dir.path("merged.gguf"), directory = dir.path("merged");
  merge(base, adapter, gguf, type, MergeFormat::kGguf);
  const WrittenModel written = merge(base, adapter, directory, type, MergeFormat::kSafetensors);
  CHECK_EQ(written.bytes, std::filesystem::file_size(directory + "/model.safetensors"));
  const std::vector<int32_t> tokens = tokens_below(512, 40);
  const std::vector<float> expected = run_logits(*load_source(gguf), tokens);
  CHECK(same_bits(run_logits(*load_source(directory), tokens), expected));
  const auto one = open_model_source(ModelPath(gguf)), two = open_model_source(ModelPath(directory));
  CHECK_EQ(one->config().sliding_window, two->config().sliding_window);
  CHECK_EQ(one->config().context_length, two->config().context_length);
  CHECK(one->vocab().unusable == two->vocab().unusable && one->vocab().pieces == two->vocab().pieces);
}

// The members of a JSON file that are texts or whole numbers.
std::map<std::string, std::string> plain_members(const std::string& directory, const std::string& name) {
  std::map<std::string, std::string> members;
  const Json json = *read_json(directory, name);
  for (const auto& [key, value] : *json.object())
    members[key] = value.string() ? *value.string() : value.integer() ? std::to_string(*value.integer()) : "";
  return members;
}

}  // namespace

TEST("write_checkpoint: the logits of the merged GGUF file, bit for bit") {
  const std::string rslora = vectors("adapters/hd128-all-rslora");
  for (const char* type : {"f32", "f16", "bf16"}) {
    check_same(vectors("models/hd128-bf16.gguf"), rslora, type);
    check_same(vectors("hf/hd128"), rslora, type);
  }
  check_same(vectors("models/hd128-f16.gguf"), rslora, "");
  check_same(vectors("models/full-bf16.gguf"), vectors("adapters/full-dora"), "bf16");
}

TEST("write_checkpoint: a quantised base becomes F16, and says so") {
  const TempDir dir;
  const std::string out = dir.path("merged"), base = vectors("models/hd128-q4_k_m.gguf");
  const std::string adapter = vectors("adapters/hd128-all-rslora");
  const WrittenModel written = merge(base, adapter, out, "", MergeFormat::kSafetensors);
  CHECK((written.types == std::map<QuantType, int64_t>{{QuantType::kF16, 16}, {QuantType::kF32, 5}}));
  CHECK(written.relative_error > 0 && written.relative_error < 1e-3);
  CHECK_EQ(plain_members(out, "config.json").at("torch_dtype"), "float16");
  check_same(base, adapter, "f16");
}

TEST("write_checkpoint: the vocabulary of a GGUF file becomes tokenizer files") {
  const TempDir dir;
  const std::string out = dir.path("merged");
  const auto source = open_model_source(ModelPath(vectors("mini/mini-q8_0.gguf")));
  write_checkpoint(out, *source,
                   RetypedWeights(source->weights(), [](const auto&) { return QuantType::kF16; }),
                   source->weights(), 2, {});
  const Vocab &was = source->vocab(), is = open_model_source(ModelPath(out))->vocab();
  CHECK(is.pieces == was.pieces && is.scores == was.scores && is.types == was.types);
  CHECK(is.bos == was.bos && is.eos == was.eos && is.unk == was.unk && is.other_eos == was.other_eos);
  CHECK(is.add_bos == was.add_bos && is.add_eos == was.add_eos &&
        is.add_space_prefix == was.add_space_prefix);
  CHECK(!was.chat_template.empty() && is.chat_template == was.chat_template);
}

TEST("write_checkpoint: the tensors of a checkpoint come out as they went in") {
  const TempDir dir;
  const std::string out = dir.path("copy");
  const auto source = open_model_source(ModelPath(vectors("hf/hd128")));
  write_checkpoint(out, *source, source->weights(), source->weights(), 2, {});
  const MappedFile file(out + "/model.safetensors");
  const SafetensorsFile header = SafetensorsFile::parse(file.bytes(), file.size());
  const std::vector<TensorCopy> originals = tensors_of("hd128");
  CHECK_EQ(header.tensors().size(), originals.size());
  for (const TensorCopy& original : originals) {
    const SafetensorsTensor* tensor = header.find(original.name);
    CHECK(tensor != nullptr && tensor->dtype == SafetensorsDtype::kBF16 && tensor->shape == original.shape);
    const auto bytes = file.bytes().subspan(size_t(tensor->offset), size_t(tensor->bytes));
    CHECK(std::equal(bytes.begin(), bytes.end(), original.bytes.begin(), original.bytes.end()));
  }
}

TEST("write_checkpoint: files beside the weights of a directory are carried over") {
  const TempDir dir;
  const std::string base = dir.path("base"), out = dir.path("merged/");
  std::filesystem::copy(vectors("hf/hd128"), base);
  std::ofstream(base + "/generation_config.json") << R"({"eos_token_id": [2, 7], "temperature": 0.6})";
  std::ofstream(base + "/chat_template.jinja") << "{{ messages }}";
  std::ofstream(base + "/notes.txt") << "not of the model";
  merge(base, vectors("adapters/hd128-all-rslora"), out, "", MergeFormat::kSafetensors);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(out)) names.insert(entry.path().filename());
  CHECK((names == std::set<std::string>{"chat_template.jinja", "config.json", "generation_config.json",
                                        "model.safetensors", "tokenizer.model"}));
  for (const char* name : {"generation_config.json", "tokenizer.model", "chat_template.jinja"})
    CHECK(read_text(base, name) == read_text(out, name));
  const auto config = plain_members(out, "config.json");
  for (const auto& [key, value] : plain_members(base, "config.json"))
    if (key.ends_with("size") || key.starts_with("num_") || key == "sliding_window" || key == "torch_dtype")
      CHECK_EQ(config.at(key), value);
  CHECK(open_model_source(ModelPath(out))->vocab().ends_text(7));
}

TEST("write_checkpoint: a tied model stays tied") {
  const TempDir dir;
  const std::string base = dir.path("base"), out = dir.path("merged");
  copy_tied("hd128", base);
  merge(base, vectors("adapters/hd128-all-rslora"), out, "", MergeFormat::kSafetensors);
  CHECK(open_model_source(ModelPath(out))->weights().tensors().back().role == TensorRole::kFinalNorm);
  check_same(base, vectors("adapters/hd128-all-rslora"), "bf16");
}

TEST("write_checkpoint: shards hold no more than they may, and an index finds them") {
  const TempDir dir;
  const std::string out = dir.path("merged");
  constexpr uint64_t kLimit = 600'000;
  const auto source = open_model_source(ModelPath(vectors("models/hd128-bf16.gguf")));
  write_checkpoint(out, *source, source->weights(), source->weights(), 2, {}, kLimit);
  const Json index = *read_json(out, "model.safetensors.index.json");
  uint64_t total = 0;
  std::set<std::string> files;
  for (const auto& [tensor, file] : *index.find("weight_map")->object()) files.insert(*file.string());
  CHECK(files.size() > 3 &&
        files.count("model-00001-of-0000" + std::to_string(files.size()) + ".safetensors") == 1);
  for (const std::string& name : files) {
    const MappedFile file(out + "/" + name);
    const SafetensorsFile header = SafetensorsFile::parse(file.bytes(), file.size());
    uint64_t bytes = 0;
    for (const SafetensorsTensor& tensor : header.tensors()) bytes += tensor.bytes;
    CHECK(bytes <= kLimit || header.tensors().size() == 1);
    CHECK_EQ(header.metadata().at("format"), "pt");
    total += bytes;
  }
  CHECK_EQ(uint64_t(*index.find("metadata")->find("total_size")->integer()), total);
  const std::vector<int32_t> tokens = tokens_below(512, 20);
  CHECK(same_bits(run_logits(*load_source(out), tokens),
                  run_logits(*load_source(vectors("models/hd128-bf16.gguf")), tokens)));
}

TEST("write_checkpoint: what cannot be written leaves nothing behind") {
  const TempDir dir;
  const std::string base = vectors("models/hd128-bf16.gguf"), adapter = vectors("adapters/hd128-all-rslora");
  const auto refuse = [&](ErrorCode code, const std::string& words, const std::string& out,
                          const std::string& type, const LoadCallbacks& callbacks = {}) {
    expect_error(words, code, words, [&] {
      merge_adapter(base, out,
                    {.adapter = adapter, .type = type, .format = MergeFormat::kSafetensors, .threads = 2},
                    callbacks);
    });
  };
  refuse(ErrorCode::kInvalidArg, "holds weights in f32, f16 or bf16, not in 'q4_k'", dir.path("out"), "q4_k");
  const std::string taken = dir.path("taken");
  std::filesystem::create_directory(taken);
  std::ofstream(taken + "/mine") << "precious";
  refuse(ErrorCode::kInvalidArg, "is there already", taken, "bf16");
  refuse(ErrorCode::kInvalidArg, "is there already", taken + "/mine", "bf16");
  refuse(ErrorCode::kInvalidArg, "cannot create the directory", dir.path("no/such"), "bf16");
  const std::atomic<bool> cancelled{true};
  refuse(ErrorCode::kAborted, "", dir.path("out"), "bf16", {.on_progress = {}, .cancelled = &cancelled});
  CHECK_EQ(std::distance(std::filesystem::directory_iterator(dir.path("")), {}), 1);
  CHECK_EQ(*read_text(taken, "mine"), "precious");
}
