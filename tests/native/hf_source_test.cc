// SPDX-License-Identifier: Apache-2.0
// Sources over safetensors: the row order of Q and K against a GGUF file of the same checkpoint, quantising
// on the fly against quantising whole, and matrices that are none.
#include "model/hf_source.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "io/gguf.h"
#include "quant/quantize.h"
#include "vectors.h"

using namespace maestrale;

namespace {

// The file of 4-bit checkpoints also holds the BF16 matrices that they were made of.
struct Sources {
  MappedFile file{std::string(test::kVectors) + "/four-bit.vectors.safetensors"};
  SafetensorsFile header = SafetensorsFile::parse(file.bytes(), file.size());

  std::unique_ptr<SafetensorsSource> open(const std::string& name) const {
    return std::make_unique<SafetensorsSource>(file, *header.find(name));
  }
};

std::vector<std::byte> read(const MatrixSource& source, int64_t first_row, int64_t n_rows) {
  std::vector<std::byte> rows(uint64_t(n_rows) * row_bytes(source.type, uint64_t(source.cols)));
  source.read_rows(first_row, n_rows, rows.data());
  return rows;
}

std::vector<std::byte> gguf_bytes(const std::string& file_name, const std::string& tensor_name) {
  const auto bytes = test::read_vector_file(file_name);
  const GgufFile file = GgufFile::parse(bytes, bytes.size());
  const GgufTensor& tensor = *file.find_tensor(tensor_name);
  const auto begin = bytes.begin() + long(tensor.offset);
  return {begin, begin + long(tensor.bytes)};
}

// A matrix in memory.
class FloatSource final : public MatrixSource {
 public:
  FloatSource(std::vector<float> weights, int64_t n_cols)
      : MatrixSource(QuantType::kF32, int64_t(weights.size()) / n_cols, n_cols),
        weights_(std::move(weights)) {}
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    std::memcpy(out, &weights_[size_t(first_row * cols)], size_t(n_rows * cols) * 4);
  }

 private:
  const std::vector<float> weights_;
};

}  // namespace

TEST("hf_source: a matrix is read as stored") {
  const Sources sources;
  const auto v = sources.open("swa16-nf4.self_attn.v_proj.source");
  CHECK(v->type == QuantType::kBF16);
  CHECK_EQ(v->rows, 64);
  CHECK_EQ(v->cols, 256);
  CHECK(read(*v, 0, 64) == gguf_bytes("models/swa16-bf16.gguf", "blk.0.attn_v.weight"));
  CHECK(sources.open("swa16-nf4.self_attn.v_proj.dequantized")->type == QuantType::kF32);
  CHECK_THROWS(read(*v, 60, 5), ErrorCode::kInternal);
  CHECK_THROWS(v->read_rows(-1, 1, nullptr), ErrorCode::kInternal);
}

TEST("hf_source: Q and K rows in the order of GGUF") {
  const Sources sources;
  const ReorderedSource wide(sources.open("hd128-nf4-double.self_attn.k_proj.source"), 128, checkpoint_row);
  const auto expected = gguf_bytes("models/hd128-bf16.gguf", "blk.0.attn_k.weight");
  CHECK(read(wide, 0, wide.rows) == expected);
  const auto part = read(wide, 101, 60);  // across a head, from an odd row
  CHECK(std::memcmp(part.data(), &expected[101 * 512], part.size()) == 0);
  const ReorderedSource narrow(sources.open("swa16-nf4.self_attn.k_proj.source"), 32, checkpoint_row);
  CHECK(read(narrow, 0, narrow.rows) == gguf_bytes("models/swa16-bf16.gguf", "blk.0.attn_k.weight"));
  CHECK_THROWS(ReorderedSource(sources.open("swa16-nf4.self_attn.k_proj.source"), 48, checkpoint_row),
               ErrorCode::kModelFormat);
  CHECK_THROWS(ReorderedSource(sources.open("swa16-nf4.self_attn.k_proj.source"), 1, checkpoint_row),
               ErrorCode::kModelFormat);
  CHECK_THROWS(ReorderedSource(sources.open("swa16-nf4.self_attn.k_proj.source"), 0, checkpoint_row),
               ErrorCode::kModelFormat);
}

TEST("hf_source: quantising on the fly") {
  const Sources sources;
  const std::string name = "hd128-nf4-double.self_attn.k_proj.source";
  std::vector<float> weights;
  const auto stored = read(*sources.open(name), 0, 256);
  for (size_t i = 0; i < stored.size(); i += 2) {
    uint16_t half;
    std::memcpy(&half, &stored[i], 2);
    weights.push_back(bf16_to_f32(half));
  }
  for (QuantType type :
       {QuantType::kQ8_0, QuantType::kQ4_K, QuantType::kQ6_K, QuantType::kF16, QuantType::kF32}) {
    const QuantizingSource source(sources.open(name), type, name);
    CHECK(source.type == type);
    std::vector<std::byte> expected(row_bytes(type, weights.size()));
    quantize_row(type, weights.data(), int64_t(weights.size()), expected.data());
    CHECK(read(source, 0, 256) == expected);
    const auto part = read(source, 7, 3);
    CHECK(std::memcmp(part.data(), &expected[7 * row_bytes(type, 256)], part.size()) == 0);
  }
}

TEST("hf_source: what cannot be quantised") {
  const Sources sources;
  const std::string name = "swa16-nf4.self_attn.k_proj.source";
  CHECK_THROWS(QuantizingSource(sources.open(name), QuantType::kIQ4_NL, name), ErrorCode::kInvalidArg);
  CHECK_THROWS(
      QuantizingSource(std::make_unique<FloatSource>(std::vector<float>(160), 160), QuantType::kQ4_K, "w"),
      ErrorCode::kInvalidArg);
  std::vector<float> weights(128, 1.0f);
  weights[100] = std::nanf("");
  const QuantizingSource damaged(std::make_unique<FloatSource>(weights, 32), QuantType::kQ8_0, "w");
  CHECK_EQ(read(damaged, 0, 3).size(), 3u * 34);
  try {
    read(damaged, 0, 4);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kModelFormat);
    CHECK(error.message().starts_with("row 3 of 'w': the weight in column 4 is nan"));
  }
}

TEST("hf_source: tensors that are no weight matrices") {
  const Sources sources;
  CHECK_THROWS(sources.open("swa16-nf4.self_attn.k_proj"), ErrorCode::kModelUnsupported);  // U8
  CHECK_THROWS(sources.open("swa16-nf4.self_attn.k_proj.quant_map"),
               ErrorCode::kModelFormat);  // one dimension
  const SafetensorsTensor empty{"e", SafetensorsDtype::kF32, {0, 32}, 8, 0};
  CHECK_THROWS(SafetensorsSource(sources.file, empty), ErrorCode::kModelFormat);
}
