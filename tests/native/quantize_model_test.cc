// SPDX-License-Identifier: Apache-2.0
// Whole models through the quantiser: round trips to the last bit, the blocks of llama.cpp's own quantiser,
// metadata, and failures that leave nothing behind.
#include "engine/quantize_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <iterator>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "checkpoint_fixture.h"
#include "engine/model_source.h"
#include "engine/packed_file.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "model/gguf_config.h"
#include "quant/dequantize.h"
#include "reference.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;
namespace fs = std::filesystem;

namespace {

std::string vectors(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

WrittenModel quantize(const std::string& in, const std::string& out, const std::string& type,
                      int32_t threads = 2) {
  return quantize_model(in, out, {.type = type, .threads = threads}, {});
}

std::vector<std::byte> read_all(const std::string& path) {
  const MappedFile file(path);
  return {file.bytes().begin(), file.bytes().end()};
}

size_t files_in(const TempDir& dir) {
  return size_t(std::distance(fs::directory_iterator(dir.path("")), {}));
}

const std::vector<int32_t> kTokens{1,  17, 5,   90,  33, 2,   64, 8,  41,  3,
                                   77, 20, 300, 211, 9,  499, 13, 57, 402, 6};

// hd128 with its weights in binary16, rounded once.
void write_f16_checkpoint(const TempDir& dir) {
  std::vector<TensorCopy> tensors = tensors_of("hd128");
  for (TensorCopy& tensor : tensors)
    for (size_t i = 0; i < tensor.bytes.size(); i += 2) {
      uint16_t half;
      std::memcpy(&half, &tensor.bytes[i], 2);
      half = f32_to_f16(bf16_to_f32(half));
      std::memcpy(&tensor.bytes[i], &half, 2);
    }
  dir.write("model.safetensors", safetensors(tensors, "F16"));
  dir.write("config.json", read_vector_file("hf/hd128/config.json"));
  dir.write("tokenizer.model", read_vector_file("hf/hd128/tokenizer.model"));
}

}  // namespace

TEST(
    "quantize_model: a checkpoint in BF16, written as GGUF, is the reference file and gives the same "
    "logits") {
  TempDir dir;
  const WrittenModel written = quantize(vectors("hf/hd128"), dir.path("out"), "bf16");
  CHECK_EQ(written.relative_error, 0.0);
  CHECK_EQ(written.types.at(QuantType::kBF16), 16);
  CHECK_EQ(written.types.at(QuantType::kF32), 5);
  const auto ours = read_all(dir.path("out")), theirs = read_vector_file("models/hd128-bf16.gguf");
  CHECK_EQ(written.bytes, ours.size());
  const GgufFile a = GgufFile::parse(ours, ours.size()), b = GgufFile::parse(theirs, theirs.size());
  CHECK_EQ(a.tensors().size(), b.tensors().size());
  for (const GgufTensor& tensor : b.tensors()) {
    const GgufTensor& copy = *a.find_tensor(tensor.name);
    CHECK(copy.type == tensor.type && copy.shape == tensor.shape);
    CHECK_EQ(std::memcmp(ours.data() + copy.offset, theirs.data() + tensor.offset, tensor.bytes), 0);
  }
  CHECK(same_bits(run_logits(*load_source(dir.path("out")), kTokens),
                  run_logits(*load_source(vectors("hf/hd128")), kTokens)));
  CHECK_EQ(check_prompts(*load_source(dir.path("out")), "hd128"), 8);
}

TEST("quantize_model: a checkpoint in F16 gives the same logits as GGUF in F16 and in F32") {
  TempDir checkpoint, dir;
  write_f16_checkpoint(checkpoint);
  const std::vector<float> expected = run_logits(*load_source(checkpoint.path("")), kTokens);
  for (const std::string type : {"f16", "f32"}) {
    CHECK_EQ(quantize(checkpoint.path(""), dir.path(type), type).relative_error, 0.0);
    CHECK(same_bits(run_logits(*load_source(dir.path(type)), kTokens), expected));
  }
  // And from GGUF to GGUF.
  quantize(dir.path("f32"), dir.path("again"), "f16");
  CHECK(same_bits(run_logits(*load_source(dir.path("again")), kTokens), expected));
}

// Blocks of 32 weights leave a quantiser no choice but how it rounds a tie; those of 256 do, and
// tests/native/quantize_test.cc holds ours to the error of theirs.
TEST("quantize_model: files have the types of llama.cpp's, and its blocks where they leave no choice") {
  TempDir dir;
  for (const std::string type :
       {"q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k"}) {
    quantize(vectors("models/hd128-bf16.gguf"), dir.path("out"), type);
    const auto ours = read_all(dir.path("out")), theirs = read_vector_file("models/hd128-" + type + ".gguf");
    const GgufFile a = GgufFile::parse(ours, ours.size()), b = GgufFile::parse(theirs, theirs.size());
    CHECK_EQ(*a.get_uint("general.file_type"), *b.get_uint("general.file_type"));
    CHECK_EQ(a.tensors().size(), b.tensors().size());
    uint64_t blocks = 0, same = 0;
    for (const GgufTensor& tensor : b.tensors()) {
      const GgufTensor& copy = *a.find_tensor(tensor.name);
      CHECK(copy.type == tensor.type && copy.shape == tensor.shape);
      const QuantTraits& traits = quant_traits(tensor.type);
      if (traits.items_per_block == 256) continue;
      const uint64_t size = traits.bytes_per_block;
      for (uint64_t at = 0; at < tensor.bytes; at += size, ++blocks)
        same += std::memcmp(ours.data() + copy.offset + at, theirs.data() + tensor.offset + at, size) == 0;
    }
    if (type == "q8_0") CHECK_EQ(same, blocks);
    if (double(same) < 0.99 * double(blocks))
      fail(__FILE__, __LINE__,
           type + ": " + std::to_string(same) + " of " + std::to_string(blocks) + " blocks");
  }
}

TEST("quantize_model: logits of a quantised file are those of its weights, and the error is reported") {
  TempDir dir;
  const std::string type = "q4_k_m";
  const WrittenModel written = quantize(vectors("hf/hd128"), dir.path("out"), type);
  const auto original = open_model_source(ModelPath(vectors("hf/hd128"))),
             quantised = open_model_source(ModelPath(dir.path("out")));
  double error = 0, power = 0;
  for (const ModelTensor& tensor : original->weights().tensors()) {
    if (tensor.is_norm()) continue;
    const auto values = [&](const ModelSource& model) {
      const auto source = model.weights().open(tensor);
      std::vector<std::byte> rows(size_t(source->rows) * row_bytes(source->type, uint64_t(source->cols)));
      source->read_rows(0, source->rows, rows.data());
      std::vector<float> out(size_t(source->rows * source->cols));
      dequantize_row(source->type, rows.data(), int64_t(out.size()), out.data());
      return out;
    };
    const std::vector<float> before = values(*original), after = values(*quantised);
    for (size_t i = 0; i < before.size(); ++i) {
      error += std::pow(double(after[i]) - before[i], 2);
      power += std::pow(double(before[i]), 2);
    }
  }
  const double expected = std::sqrt(error / power);
  CHECK(expected > 0.05 && expected < 0.1);
  // The norms, whose type changes too, are written without error and do not count.
  CHECK(std::fabs(written.relative_error / expected - 1) < 1e-9);
}

TEST("quantize_model: the file is the same for any number of threads") {
  TempDir dir;
  const WrittenModel one = quantize(vectors("hf/hd128"), dir.path("one"), "q5_k_m", 1);
  const WrittenModel four = quantize(vectors("hf/hd128"), dir.path("four"), "q5_k_m", 4);
  CHECK(read_all(dir.path("one")) == read_all(dir.path("four")));
  CHECK_EQ(one.relative_error, four.relative_error);
}

TEST("quantize_model: tensors that have their type already are copied, not quantised again") {
  TempDir dir;
  CHECK_EQ(quantize(vectors("models/hd128-q4_k_m.gguf"), dir.path("out"), "q4_k_m").relative_error, 0.0);
  CHECK(same_bits(run_logits(*load_source(dir.path("out")), kTokens),
                  run_logits(*load_source(vectors("models/hd128-q4_k_m.gguf")), kTokens)));
}

TEST("quantize_model: vocabulary, special tokens and chat template survive") {
  TempDir checkpoint, dir;
  write_f16_checkpoint(checkpoint);
  checkpoint.write("tokenizer_config.json", to_bytes(R"({"add_bos_token": true, "add_prefix_space": false,
                                "chat_template": [{"name": "default", "template": "{{ messages }}"},
                                                  {"name": "tool_use", "template": "{{ tools }}"}]})"));
  checkpoint.write("generation_config.json", to_bytes(R"({"eos_token_id": [2, 7]})"));
  quantize(checkpoint.path(""), dir.path("out"), "q8_0");
  const auto before = open_model_source(ModelPath(checkpoint.path(""))),
             after = open_model_source(ModelPath(dir.path("out")));
  const Vocab &a = before->vocab(), &b = after->vocab();
  CHECK(a.pieces == b.pieces && a.scores == b.scores && a.types == b.types);
  CHECK(a.bos == b.bos && a.eos == b.eos && a.unk == b.unk && a.other_eos == b.other_eos);
  CHECK(b.ends_text(7) && !b.ends_text(8));
  CHECK(b.add_bos && !b.add_eos && !b.add_space_prefix);
  CHECK_EQ(b.chat_template, "{{ messages }}");
  CHECK(b.named_chat_templates == a.named_chat_templates && b.named_chat_templates.size() == 1);
  const ModelConfig &c = before->config(), &d = after->config();
  CHECK(c.norm_eps == d.norm_eps && c.rope_theta == d.rope_theta && c.context_length == d.context_length);
  CHECK(c.sliding_window == 64 && d.sliding_window == 64 && d.sliding_window_source == "metadata");
}

TEST("quantize_model: metadata of a GGUF file are kept but for what changes") {
  TempDir dir;
  GgufBuilder builder = tiny_llama();
  builder.string("tokenizer.ggml.model", "llama").u64("custom.wide", 7).string("general.author", "somebody");
  builder.string("quantize.imatrix.file", "calibration")
      .u32("general.file_type", 0)
      .u32("general.alignment", 64);
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types{2, 3, 3};
  for (const char high : std::string("0123456789ABCDEF"))
    for (const char low : std::string("0123456789ABCDEF")) {
      tokens.push_back(std::string("<0x") + high + low + ">");
      types.push_back(6);
    }
  builder.strings("tokenizer.ggml.tokens", tokens).ints("tokenizer.ggml.token_type", types);
  for (const char* name : {"token_embd.weight", "output.weight"}) {
    std::erase_if(builder.tensors, [&](const TensorSpec& tensor) { return tensor.name == name; });
    builder.tensor(name, {32, tokens.size()}, 0.0f);
  }
  builder.alignment = 64;
  const std::string in = dir.write("in.gguf", builder.build());
  quantize(in, dir.path("out"), "q8_0");
  const auto bytes = read_all(dir.path("out"));
  const GgufFile file = GgufFile::parse(bytes, bytes.size());
  CHECK_EQ(*file.get_uint("custom.wide"), 7u);
  CHECK_EQ(*file.get_string("general.author"), "somebody");
  CHECK_EQ(*file.get_uint("general.file_type"), 7u);
  CHECK_EQ(*file.get_uint("general.quantization_version"), 2u);
  CHECK_EQ(*file.get_uint("llama.attention.sliding_window"), 0u);
  CHECK(file.find("quantize.imatrix.file") == nullptr && file.find("general.alignment") == nullptr);
  CHECK(file.find_tensor("blk.0.ffn_down.weight")->type ==
        QuantType::kF16);  // 48 columns are no whole blocks
}

TEST("quantize_model: the window is what the option says") {
  TempDir dir;
  for (const int64_t window : {int64_t{0}, int64_t{48}}) {
    quantize_model(vectors("hf/hd128"), dir.path("out"),
                   {.type = "q4_0", .threads = 1, .sliding_window = window}, {});
    const auto source = open_model_source(ModelPath(dir.path("out")));
    CHECK_EQ(source->config().sliding_window, window);
    CHECK_EQ(source->config().sliding_window_source, "metadata");
  }
}

// Published v0.1 files do not say their window; what is written from them does.
TEST("quantize_model: a window that was recognised becomes part of the file") {
  TempDir dir;
  const auto bytes = read_vector_file("tokenizers/vocab-only-v0.1.gguf");
  const GgufFile published = GgufFile::parse(bytes, bytes.size());
  const ModelConfig config = config_from_gguf(published);
  CHECK_EQ(config.sliding_window_source, "recognised v0.1");
  GgufMetadata metadata(published);
  write_sliding_window(config, metadata);
  GgufWriter(dir.path("out"), metadata, {}).commit();
  const auto written = read_all(dir.path("out"));
  const ModelConfig again = config_from_gguf(GgufFile::parse(written, written.size()));
  CHECK_EQ(again.sliding_window, 4096);
  CHECK_EQ(again.sliding_window_source, "metadata");
}

TEST("quantize_model: a packed file gives the bytes that the file it was made of gives") {
  TempDir dir;
  const std::string in = vectors("models/hd128-q5_k_m.gguf");
  pack_model(in, dir.path("packed"), {});
  for (const std::string type : {"q8_0", "q5_k_m"}) {
    quantize(in, dir.path("direct"), type);
    quantize(dir.path("packed"), dir.path("from packed"), type);
    CHECK(read_all(dir.path("direct")) == read_all(dir.path("from packed")));
  }
}

TEST("quantize_model: what cannot be done is refused, and no file is left") {
  TempDir dir, checkpoint, tokenless;
  write_f16_checkpoint(checkpoint);
  const std::string out = dir.path("out");
  const auto refuse = [&](ErrorCode code, const std::string& words, const std::string& in,
                          const std::string& target, const std::string& type) {
    expect_error(words, code, words, [&] { quantize(in, target, type); });
  };
  refuse(ErrorCode::kInvalidArg, "'q9' is no type to quantise to", vectors("hf/hd128"), out, "q9");
  refuse(ErrorCode::kInvalidArg, "is a file of the model that is to be read", checkpoint.path(""),
         checkpoint.path("model.safetensors"), "q8_0");
  refuse(ErrorCode::kInvalidArg, "is a file of the model that is to be read",
         dir.write("in.gguf", read_vector_file("models/hd128-q8_0.gguf")), dir.path("in.gguf"), "q4_0");
  refuse(ErrorCode::kInvalidArg, "cannot create", vectors("hf/hd128"), dir.path("no/out"), "q8_0");
  refuse(ErrorCode::kInvalidArg, "is a directory, where a file is to be written", vectors("hf/hd128"),
         checkpoint.path(""), "q8_0");
  pack_model(dir.path("in.gguf"), dir.path("packed"), {});
  refuse(ErrorCode::kInvalidArg, "is a file of the model that is to be read", dir.path("packed"),
         dir.path("packed"), "q4_0");
  tokenless.write("config.json", read_vector_file("hf/swa16/config.json"));
  tokenless.write("model.safetensors", safetensors(tensors_of("swa16")));
  refuse(ErrorCode::kModelUnsupported, "a GGUF file needs a vocabulary", tokenless.path(""), out, "q8_0");
  CHECK_EQ(files_in(dir), 2u);

  std::vector<TensorCopy> tensors = tensors_of("hd128");
  for (TensorCopy& tensor : tensors)
    if (tensor.name == "model.layers.1.mlp.up_proj.weight")
      tensor.bytes[2 * 256 * 3 + 1] = std::byte{0x7f}, tensor.bytes[2 * 256 * 3] = std::byte{0xc0};
  checkpoint.write("model.safetensors", safetensors(tensors));
  refuse(ErrorCode::kModelFormat, "row 3 of 'model.layers.1.mlp.up_proj.weight'", checkpoint.path(""), out,
         "q4_k_m");
  CHECK_EQ(files_in(dir), 2u);
}

TEST("quantize_model: cancelling at any moment leaves what was there") {
  TempDir dir;
  const std::string out = dir.write("out", to_bytes("old"));
  for (const int reports : {1, 2, 10, 20}) {
    std::atomic<bool> cancelled{false};
    int seen = 0;
    LoadCallbacks callbacks;
    callbacks.cancelled = &cancelled;
    callbacks.on_progress = [&](uint64_t, uint64_t) { cancelled = ++seen >= reports; };
    CHECK_THROWS(quantize_model(vectors("hf/hd128"), out, {.type = "q4_0", .threads = 2}, callbacks),
                 ErrorCode::kAborted);
    CHECK_EQ(seen, reports);
    CHECK_EQ(files_in(dir), 1u);
    CHECK(read_all(out) == to_bytes("old"));
  }
}
