// SPDX-License-Identifier: Apache-2.0
// Packed images: the same logits as the GGUF file they come from, and every damaged file refused.
#include "engine/packed_file.h"

#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>

#include "check.h"
#include "checkpoint_fixture.h"
#include "engine/model_source.h"
#include "engine/quantize_model.h"
#include "engine_host.h"
#include "expect_error.h"
#include "temp_dir.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string model_path(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

std::unique_ptr<Model> load(const std::string& path, const CpuOptions& options = {1, "", {}, {}}) {
  const PackedFile packed(std::make_shared<const MappedFile>(path));
  const ModelConfig config = config_from_gguf(packed.gguf());
  auto model = load_packed_model(packed, config, options, {});
  model->prepare(
      64, {config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 64, config.sliding_window});
  return model;
}

std::vector<std::byte> read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> chars{std::istreambuf_iterator<char>(in), {}};
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST("packed: the logits are those of the GGUF file, bit for bit, without the original") {
  for (const char* name : {"models/hd128-q4_k_m.gguf", "models/hd128-q5_0.gguf", "models/hd128-iq4_xs.gguf",
                           "models/swa16-bf16.gguf"}) {
    TempDir dir;
    const std::string copy = dir.write("model.gguf", read_all(model_path(name))), out = dir.path("packed");
    pack_model(copy, out, {});
    std::filesystem::remove(copy);
    const std::vector<int32_t> tokens{1, 17, 5, 90, 33, 2, 64, 8, 41, 3, 77, 20};
    const std::unique_ptr<Model> original = load_tiny(name), packed = load(out);
    CHECK(same_bits(run_logits(*packed, tokens, 5), run_logits(*original, tokens, 5)));
    const auto weights = cpu_weights(packed->backend());
    CHECK_EQ(reinterpret_cast<uintptr_t>(weights.data()) % 4096, 0u);  // mapped, not copied
  }
}

TEST("packed: a truncated file is refused at every length") {
  TempDir dir;
  pack_model(model_path("models/hd128-q4_k_m.gguf"), dir.path("packed"), {});
  const uint64_t size = std::filesystem::file_size(dir.path("packed"));
  std::vector<uint64_t> lengths{size - 1, size - 4096, size / 2};
  for (uint64_t n = 1; n < size; n = n < 80 ? n + 1 : n * 3) lengths.push_back(n);
  std::sort(lengths.rbegin(), lengths.rend());
  for (const uint64_t n : lengths) {
    std::filesystem::resize_file(dir.path("packed"), n);
    CHECK_THROWS(load(dir.path("packed")), ErrorCode::kModelFormat);
  }
}

TEST("packed: damage to the header, the metadata or the norms is found") {
  TempDir dir;
  pack_model(model_path("models/hd128-q4_k_m.gguf"), dir.path("packed"), {});
  const std::vector<std::byte> good = read_all(dir.path("packed"));
  const auto refuse = [&](const char* words, uint64_t offset, std::vector<uint8_t> bytes) {
    std::vector<std::byte> bad = good;
    std::memcpy(bad.data() + offset, bytes.data(), bytes.size());
    const std::string path = dir.write("bad", bad);
    expect_error(words, ErrorCode::kModelFormat, words, [&] { load(path); });
  };
  const std::vector<uint8_t> huge(8, 0xff);
  refuse("is no packed model", 0, {'X'});
  refuse("another byte order", 8, {1, 2, 3, 4});
  refuse("was packed by another version (layout 99", 12, {99});
  refuse("but was packed with 18446744073709551615", 16, huge);
  refuse("checksum", 24, huge);  // the size of the source
  for (const uint64_t field : {32, 40, 48}) refuse("has a part of 18446744073709551615 bytes", field, huge);
  refuse("parts that end at byte", 48, {1});
  refuse("checksum", 56, {uint8_t(uint8_t(good[56]) ^ 1)});
  for (const uint64_t offset : {64, 400}) refuse("checksum", offset, {uint8_t(uint8_t(good[offset]) ^ 1)});
  uint64_t gguf_size;
  std::memcpy(&gguf_size, good.data() + 32, 8);
  const uint64_t norms = (64 + gguf_size + 63) / 64 * 64;
  refuse("checksum", norms, {uint8_t(uint8_t(good[norms]) ^ 1)});
  load(dir.write("good", good));
}

TEST("packed: weights for another model are refused by their size") {
  const auto owner = std::make_shared<const std::vector<std::byte>>(4096);
  const auto backend = make_cpu_backend({.threads = 1, .isa = "", .weights = *owner, .weights_owner = owner});
  CHECK_THROWS(backend->reserve_weights(4097), ErrorCode::kModelFormat);
  backend->reserve_weights(4096);
}

TEST("packed: a failed write leaves nothing behind, and the source is never overwritten") {
  TempDir dir;
  const std::string in = dir.write("in.gguf", read_all(model_path("models/hd128-q8_0.gguf")));
  CHECK_THROWS(pack_model(in, in, {}), ErrorCode::kInvalidArg);
  CHECK_THROWS(pack_model(in, dir.path("no/such/directory"), {}), ErrorCode::kInvalidArg);
  std::filesystem::create_directory(dir.path("taken"));
  CHECK_THROWS(pack_model(in, dir.path("taken"), {}), ErrorCode::kInvalidArg);
  pack_model(in, dir.path("out"), {});
  CHECK_THROWS(pack_model(dir.path("out"), dir.path("again"), {}), ErrorCode::kInvalidArg);
  CHECK_EQ(std::distance(std::filesystem::directory_iterator(dir.path("")), {}), 3);  // in, taken, out
}

TEST("packed: the rows of every tensor are those of the GGUF file, from any row on") {
  TempDir dir;
  copy_tied("hd128", dir.path("checkpoint"));
  quantize_model(dir.path("checkpoint"), dir.path("tied.gguf"), {.type = "q4_k_m"}, {});
  for (const std::string& path :
       {model_path("models/hd128-q4_k_m.gguf"), model_path("models/hd128-q5_0.gguf"),
        model_path("models/hd128-q3_k_m.gguf"), model_path("models/swa16-bf16.gguf"),
        dir.path("tied.gguf")}) {
    pack_model(path, dir.path("packed"), {});
    const auto original = open_model_source(ModelPath(path)),
               packed = open_model_source(ModelPath(dir.path("packed")));
    CHECK(packed->contains(dir.path("packed")) && !packed->contains(path));
    CHECK_EQ(packed->vocab().size(), original->vocab().size());
    for (const ModelTensor& tensor : original->weights().tensors()) {
      const auto want = original->weights().open(tensor), got = packed->weights().open(tensor);
      CHECK_EQ(int(got->type), int(want->type));
      const uint64_t row = row_bytes(want->type, uint64_t(want->cols));
      for (int64_t first = 0, n = 1; first < want->rows; first += n, n += 11) {
        n = std::min(n, want->rows - first);
        std::vector<std::byte> a(size_t(n) * row), b(a.size());
        want->read_rows(first, n, a.data());
        got->read_rows(first, n, b.data());
        CHECK(a == b);
      }
    }
  }
}

TEST("packed: it can be quantised while it is loaded, and its tokenizer opened alone") {
  TempDir dir;
  pack_model(model_path("models/hd128-q8_0.gguf"), dir.path("packed"), {});
  const auto run = [](const std::string& path) {
    OpenOptions options;
    options.path = path;
    options.quantization = "q4_0";
    Host host(options);
    CHECK_EQ(host.opened().facts.quantization.at("q4_0"), 15);
    return host.run(request(1, some_tokens(20))).tokens;
  };
  CHECK(run(dir.path("packed")) == run("models/hd128-q8_0.gguf"));
  CHECK_EQ(open_tokenizer(dir.path("packed"))->vocab().size(), 512);
}
