// SPDX-License-Identifier: Apache-2.0
// The loader against a backend that only writes down what it is given.
#include "model/loader.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <stdexcept>

#include "check.h"
#include "expect_error.h"
#include "gguf_builder.h"
#include "temp_dir.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

struct Loaded {
  std::string kind;  // "table", "matrix", "vector"
  QuantType type;
  int64_t rows, cols;
  std::vector<std::byte> bytes;
};

struct Record {
  uint64_t reserved = 0, used = 0;
  std::vector<Loaded> weights;
  std::function<void()> before_read = [] {};
};

// Handles are 1 + the index into Record::weights, so a test can tell where each weight went.
class RecordingBackend final : public Backend {
 public:
  explicit RecordingBackend(Record& record) : record_(record) {}
  std::string_view device() const override { return "recording"; }
  std::string_view isa() const override { return "none"; }
  int32_t threads() const override { return 1; }
  uint64_t matrix_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return uint64_t(rows) * row_bytes(type, uint64_t(cols));
  }
  uint64_t table_bytes(QuantType type, int64_t rows, int64_t cols) const override {
    return 2 * matrix_bytes(type, rows, cols);  // another figure than for a matrix
  }
  void reserve_weights(uint64_t bytes) override {
    CHECK(record_.weights.empty() && record_.reserved == 0);
    record_.reserved = bytes;
  }
  Matrix load_matrix(const MatrixSource& source) override {
    record_.used += matrix_bytes(source.type, source.rows, source.cols);
    return load("matrix", source);
  }
  Matrix load_table(const MatrixSource& source) override {
    record_.used += table_bytes(source.type, source.rows, source.cols);
    return load("table", source);
  }
  Tensor load_vector(std::span<const float> values) override {
    const auto bytes = std::as_bytes(values);
    record_.weights.push_back(
        {"vector", QuantType::kF32, 1, int64_t(values.size()), {bytes.begin(), bytes.end()}});
    return {nullptr, int64_t(values.size())};
  }
  Tensor allocate(int64_t, int64_t cols) override { return {nullptr, cols}; }
  void configure_kv(const KvConfig&) override {}
  uint64_t kv_page_bytes(const KvConfig&) const override { return 0; }
  uint64_t scratch_bytes(const KvConfig&, int64_t, int64_t) const override { return 0; }
  void set_interrupt(const std::atomic<bool>*) override {}
  void begin(const Batch&) override {}
  void embed(const Matrix&, Tensor) override {}
  void rms_norm(Tensor, Tensor, float, Tensor) override {}
  void matmul(Tensor, std::span<const Projection>) override {}
  void matmul_add(Tensor, const Matrix&, Tensor) override {}
  void swiglu(Tensor, const Matrix&, const Matrix&, Tensor, Tensor) override {}
  AdapterOps& adapters() override { throw std::logic_error("no adapters"); }
  void rope_and_append(int32_t, Tensor, Tensor, Tensor) override {}
  void attention(int32_t, Tensor, Tensor) override {}
  void gather_rows(Tensor, std::span<const int32_t>, Tensor) override {}
  std::span<const float> read(Tensor, int64_t) override { return {}; }
  void write(std::span<const float>, Tensor) override {}
  void set_rope(std::span<const double>) override {}

 private:
  // Rows arrive in pieces of uneven size, the last ones first, as from several threads.
  Matrix load(const char* kind, const MatrixSource& source) {
    const uint64_t row = row_bytes(source.type, uint64_t(source.cols));
    std::vector<std::byte> bytes(uint64_t(source.rows) * row);
    for (int64_t end = source.rows; end > 0;) {
      const int64_t n = std::min<int64_t>(end, 7);
      end -= n;
      record_.before_read();
      source.read_rows(end, n, bytes.data() + uint64_t(end) * row);
    }
    expect_error("rows past the end", ErrorCode::kInternal, "were asked for",
                 [&] { source.read_rows(source.rows, 1, bytes.data()); });
    record_.weights.push_back({kind, source.type, source.rows, source.cols, std::move(bytes)});
    return {source.type, source.rows, source.cols, nullptr};
  }

  Record& record_;
};

Record load(const std::string& path, const LoadCallbacks& callbacks = {}) {
  const MappedFile file(path);
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  Record record;
  const auto model = load_gguf_model(file, header, config_from_gguf(header),
                                     std::make_unique<RecordingBackend>(record), callbacks);
  CHECK(model != nullptr);
  CHECK_EQ(record.used, record.reserved);
  return record;
}

Record load(const GgufBuilder& builder, const LoadCallbacks& callbacks = {}) {
  TempDir dir;
  return load(dir.write("model.gguf", builder.build()), callbacks);
}

float first_value(const Loaded& weight) {
  float value;
  std::memcpy(&value, weight.bytes.data(), sizeof value);
  return value;
}

void refuse(const char* what, ErrorCode code, const char* words,
            const std::function<void(GgufBuilder&)>& change) {
  GgufBuilder builder = tiny_llama();
  change(builder);
  expect_error(what, code, words, [&] { load(builder); });
}

}  // namespace

TEST("loader: every tensor reaches its weight, byte for byte") {
  const GgufBuilder builder = tiny_llama();
  const Record record = load(builder);
  // In the order of the forward pass; tiny_llama() numbers its tensors by their first value.
  const struct {
    const char* kind;
    float first;
    int64_t rows, cols;
  } kExpected[] = {{"table", 0, 5, 32},   {"vector", 8, 1, 32},  {"matrix", 1, 32, 32},
                   {"matrix", 2, 16, 32}, {"matrix", 3, 16, 32}, {"matrix", 4, 32, 32},
                   {"vector", 9, 1, 32},  {"matrix", 5, 48, 32}, {"matrix", 6, 48, 32},
                   {"matrix", 7, 32, 48}, {"vector", 10, 1, 32}, {"matrix", 11, 5, 32}};
  CHECK_EQ(record.weights.size(), std::size(kExpected));
  for (size_t i = 0; i < record.weights.size(); ++i) {
    const Loaded& weight = record.weights[i];
    CHECK_EQ(weight.kind, kExpected[i].kind);
    CHECK_EQ(first_value(weight), kExpected[i].first);
    CHECK_EQ(weight.rows, kExpected[i].rows);
    CHECK_EQ(weight.cols, kExpected[i].cols);
    const auto same = [&](const TensorSpec& spec) { return spec.data.data == weight.bytes; };
    CHECK(std::any_of(builder.tensors.begin(), builder.tensors.end(), same));
  }
}

TEST("loader: all storage types of the test models load") {
  for (const char* name : {"bf16", "f16", "iq4_nl", "iq4_xs", "q2_k", "q3_k_m", "q4_0", "q4_1", "q4_k_m",
                           "q4_k_s", "q5_0", "q5_1", "q5_k_m", "q6_k", "q8_0"}) {
    const Record record = load(std::string(test::kVectors) + "/models/hd128-" + name + ".gguf");
    CHECK_EQ(record.weights.size(), 21u);
  }
  for (const char* name : {"models/swa16-bf16", "models/full-bf16", "mini/mini-q8_0"})
    load(std::string(test::kVectors) + "/" + name + ".gguf");
}

TEST("loader: without an output matrix the embedding is loaded twice") {
  GgufBuilder builder = tiny_llama();
  std::erase_if(builder.tensors, [](const TensorSpec& t) { return t.name == "output.weight"; });
  const Record record = load(builder);
  CHECK_EQ(record.weights.size(), 12u);
  CHECK_EQ(record.weights[0].kind, "table");
  CHECK_EQ(record.weights[1].kind, "matrix");
  CHECK(record.weights[0].bytes == record.weights[1].bytes);
}

TEST("loader: norm weights of 16 bits are widened exactly") {
  for (const bool bf16 : {false, true}) {
    GgufBuilder builder = tiny_llama();
    TensorSpec& norm = builder.find("output_norm.weight");
    norm.type = bf16 ? 30 : 1;
    norm.data.data.clear();
    for (int i = 0; i < 32; ++i) norm.data.put<uint16_t>(bf16 ? 0x3fc0 : 0x3e00);  // 1.5
    const Record record = load(builder);
    std::vector<float> values(32);
    std::memcpy(values.data(), record.weights[10].bytes.data(), 128);
    for (const float value : values) CHECK_EQ(value, 1.5f);
  }
}

TEST("loader: norm weights must be finite numbers of a plain type") {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
    refuse("not finite", ErrorCode::kModelFormat,
           "element 31 of tensor 'blk.0.ffn_norm.weight' is not a finite", [=](GgufBuilder& b) {
             std::memcpy(b.find("blk.0.ffn_norm.weight").data.data.data() + 31 * 4, &bad, sizeof bad);
           });
  refuse("quantised norm", ErrorCode::kModelUnsupported, "has type Q8_0, but norm weights must be",
         [](GgufBuilder& b) {
           TensorSpec& norm = b.find("output_norm.weight");
           norm.type = 8;
           norm.data.data.resize(34);
         });
}

TEST("loader: a missing tensor is named") {
  for (const TensorSpec& tensor : tiny_llama().tensors) {
    if (tensor.name == "output.weight") continue;  // optional
    refuse(tensor.name.c_str(), ErrorCode::kModelFormat, ("tensor '" + tensor.name + "' is missing").c_str(),
           [&](GgufBuilder& b) {
             std::erase_if(b.tensors, [&](const TensorSpec& t) { return t.name == tensor.name; });
           });
  }
  refuse("second layer", ErrorCode::kModelFormat, "tensor 'blk.1.attn_norm.weight' is missing",
         [](GgufBuilder& b) { b.u32("llama.block_count", 2); });
}

TEST("loader: a shape that contradicts the metadata is named") {
  for (const TensorSpec& tensor : tiny_llama().tensors)
    refuse(tensor.name.c_str(), ErrorCode::kModelFormat, ("tensor '" + tensor.name + "' has shape").c_str(),
           [&](GgufBuilder& b) {
             TensorSpec& changed = b.find(tensor.name);
             changed.shape[0] /= 2;  // fewer bytes, still inside the file
           });
  const auto reshape = [](const char* name, std::vector<uint64_t> shape) {
    return [=](GgufBuilder& b) { b.find(name).shape = shape; };
  };
  const ErrorCode format = ErrorCode::kModelFormat;
  refuse("transposed", format, "has shape 32 x 48, but the metadata demands 48 x 32",
         reshape("blk.0.ffn_down.weight", {32, 48}));
  refuse("vector upright", format, "has shape 1 x 32, but the metadata demands 32",
         reshape("output_norm.weight", {1, 32}));
  refuse("matrix in three dimensions", format, "has shape 32 x 4 x 8",
         reshape("blk.0.attn_q.weight", {32, 4, 8}));
  refuse("vocabulary", format, "demands 32 x 6", [](GgufBuilder& b) { b.u32("llama.vocab_size", 6); });
  GgufBuilder trailing = tiny_llama();
  trailing.find("blk.0.attn_q.weight").shape = {32, 32, 1, 1};
  trailing.find("output_norm.weight").shape = {32, 1};
  load(trailing);
}

TEST("loader: a tensor that Mistral does not have is refused by name") {
  const ErrorCode unsupported = ErrorCode::kModelUnsupported;
  refuse("bias", unsupported, "'blk.0.attn_q.bias', a bias",
         [](GgufBuilder& b) { b.tensor("blk.0.attn_q.bias", {32}); });
  refuse("rope", unsupported, "'rope_freqs.weight', a RoPE scaling",
         [](GgufBuilder& b) { b.tensor("rope_freqs.weight", {8}); });
  refuse("other", unsupported, "'blk.1.attn_q.weight', which is no part", [](GgufBuilder& b) {
    b.tensor("blk.1.attn_q.weight", {32, 32});
  });
}

TEST("loader: a vocabulary without weights is no model") {
  expect_error("vocabulary", ErrorCode::kModelFormat, "holds a vocabulary but no weights",
               [] { load(std::string(test::kVectors) + "/tokenizers/vocab-only-v0.2.gguf"); });
}

TEST("loader: progress counts every byte once and ends at the total") {
  std::vector<uint64_t> loaded;
  uint64_t total = 0, bytes = 0;
  for (const TensorSpec& tensor : tiny_llama().tensors) bytes += tensor.data.data.size();
  load(tiny_llama(), {.on_progress = [&](uint64_t now, uint64_t all) {
         loaded.push_back(now);
         total = all;
       }});
  CHECK_EQ(total, bytes);
  CHECK_EQ(loaded.size(), 13u);
  CHECK_EQ(loaded.front(), 0u);
  CHECK_EQ(loaded.back(), total);
  for (size_t i = 1; i < loaded.size(); ++i) CHECK(loaded[i] > loaded[i - 1]);
}

TEST("loader: cancellation stops before the next tensor") {
  std::atomic<bool> cancelled{false};
  int reports = 0;
  const LoadCallbacks callbacks{.on_progress = [&](uint64_t, uint64_t) { cancelled = ++reports == 2; },
                                .cancelled = &cancelled};
  expect_error("between", ErrorCode::kAborted, "was aborted", [&] { load(tiny_llama(), callbacks); });
  CHECK_EQ(reports, 2);  // the next one, a norm, was not loaded
  reports = 0;
  cancelled = true;
  expect_error("at once", ErrorCode::kAborted, "was aborted", [&] { load(tiny_llama(), callbacks); });
  CHECK_EQ(reports, 0);
}

TEST("loader: cancellation stops within a tensor") {
  TempDir dir;
  const MappedFile file(dir.write("model.gguf", tiny_llama().build()));
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  std::atomic<bool> cancelled{false};
  int reads = 0;
  Record record;
  record.before_read = [&] { cancelled = ++reads == 5; };
  expect_error("within", ErrorCode::kAborted, "was aborted", [&] {
    load_gguf_model(file, header, config_from_gguf(header), std::make_unique<RecordingBackend>(record),
                    {.on_progress = {}, .cancelled = &cancelled});
  });
  CHECK_EQ(reads, 5);                   // the table takes 1 read, blk.0.attn_q 5: its last one is refused
  CHECK_EQ(record.weights.size(), 2u);  // the table and a norm
}

TEST("loader: a file that shrinks while it is loaded is an error") {
  TempDir dir;
  const std::string path = dir.write("model.gguf", tiny_llama().build());
  const LoadCallbacks shrink{.on_progress = [&](uint64_t loaded, uint64_t) {
    if (loaded == 0) std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  }};
  expect_error("shrunk", ErrorCode::kModelFormat, "became shorter", [&] { load(path, shrink); });
}
