// SPDX-License-Identifier: Apache-2.0
// Matrices of bitsandbytes checkpoints through their sources, and quantisation states that contradict the
// tensors they belong to.
#include "model/bnb_source.h"

#include <cmath>
#include <cstring>

#include "base/error.h"
#include "check.h"
#include "quant/dequantize.h"
#include "temp_dir.h"
#include "vectors.h"

using namespace maestrale;

namespace {

const std::string kCheckpoints = std::string(test::kVectors) + "/four-bit.vectors.safetensors";

struct Checkpoint {
  explicit Checkpoint(const std::string& path)
      : file(path), header(SafetensorsFile::parse(file.bytes(), file.size())) {}
  MappedFile file;
  SafetensorsFile header;
  FourBitMatrix read(const std::string& name) const { return read_four_bit(file, header, name); }
};

using Tensors = std::map<std::string, test::VectorTensor>;

// The tensors of one matrix as the bytes of a checkpoint of its own.
std::vector<std::byte> checkpoint_bytes(const Tensors& tensors) {
  std::string header = "{", data;
  for (const auto& [name, tensor] : tensors) {
    header += (header.size() > 1 ? ",\"" : "\"") + name + R"(":{"dtype":")" + tensor.dtype +
              R"(","shape":[)" + std::to_string(tensor.bytes.size() / (tensor.dtype == "F32" ? 4 : 1)) +
              R"(],"data_offsets":[)" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + tensor.bytes.size()) + "]}";
    data.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  header += "}";
  const uint64_t size = header.size();
  std::vector<std::byte> bytes(8 + header.size() + data.size());
  std::memcpy(bytes.data(), &size, 8);
  std::memcpy(bytes.data() + 8, header.data(), header.size());
  std::memcpy(bytes.data() + 8 + header.size(), data.data(), data.size());
  return bytes;
}

constexpr const char* kNested = "hd128-nf4-double.self_attn.k_proj";
const std::string kState = std::string(kNested) + ".quant_state.bitsandbytes__nf4";

Tensors nested_tensors() {
  Tensors tensors;
  for (auto& [name, tensor] : test::read_vectors("four-bit.vectors.safetensors"))
    if (name.starts_with(kNested) && !name.ends_with(".source") && !name.ends_with(".dequantized"))
      tensors.emplace(name, tensor);
  return tensors;
}

test::VectorTensor text_tensor(const std::string& text) {
  const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
  return {"U8", {text.size()}, {bytes, bytes + text.size()}};
}

std::string state_with(const std::string& part, const std::string& replacement) {
  std::string text =
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [256, 256], "nested_blocksize": 256, )"
      R"("nested_dtype": "float32", "nested_offset": 0.25})";
  const size_t at = text.find(part);
  if (at == std::string::npos) throw std::runtime_error("the state has no " + part);
  return text.replace(at, part.size(), replacement);
}

void check_refused(const Tensors& tensors, ErrorCode code = ErrorCode::kModelFormat) {
  const test::TempDir directory;
  const Checkpoint checkpoint(directory.write("m.safetensors", checkpoint_bytes(tensors)));
  CHECK_THROWS(checkpoint.read(kNested), code);
}

}  // namespace

TEST("bnb_source: rows of checkpoints are dequantised exactly") {
  const Checkpoint checkpoint(kCheckpoints);
  const auto vectors = test::read_vectors("four-bit.vectors.safetensors");
  for (const std::string name :
       {"swa16-nf4.self_attn.k_proj", "swa16-fp4-double.self_attn.v_proj", kNested}) {
    CHECK(is_four_bit(checkpoint.header, name));
    const FourBitSource source(checkpoint.file, checkpoint.read(name));
    const auto expected = vectors.at(name + ".dequantized").as<float>();
    CHECK(source.type == QuantType::kF32);
    CHECK_EQ(size_t(source.rows * source.cols), expected.size());
    std::vector<float> rows(size_t(10 * source.cols));
    source.read_rows(20, 10, reinterpret_cast<std::byte*>(rows.data()));
    CHECK(std::memcmp(rows.data(), &expected[size_t(20 * source.cols)], rows.size() * 4) == 0);
    CHECK_THROWS(source.read_rows(source.rows, 1, nullptr), ErrorCode::kInternal);
  }
  CHECK(!is_four_bit(checkpoint.header, "swa16-nf4.self_attn.k_proj.source"));
}

TEST("bnb_source: a 16-bit matrix comes back in its own dtype") {
  for (const auto& [dtype, type] :
       {std::pair("bfloat16", QuantType::kBF16), std::pair("float16", QuantType::kF16)}) {
    Tensors tensors = nested_tensors();
    std::string state = state_with("0.25", "0.22634124755859375");
    state.replace(state.find("float32"), 7, dtype);
    tensors[kState] = text_tensor(state);
    const test::TempDir directory;
    const Checkpoint checkpoint(directory.write("m.safetensors", checkpoint_bytes(tensors)));
    const FourBitSource source(checkpoint.file, checkpoint.read(kNested));
    CHECK(source.type == type);
    std::vector<std::byte> row(row_bytes(type, 256));
    source.read_rows(255, 1, row.data());
    std::vector<float> weights(256);
    dequantize_row(type, row.data(), 256, weights.data());
    const auto exact = test::read_vectors("four-bit.vectors.safetensors")
                           .at(std::string(kNested) + ".dequantized")
                           .as<float>();
    for (size_t i = 0; i < 256; ++i)
      CHECK(std::fabs(weights[i] - exact[255 * 256 + i]) <= std::fabs(exact[255 * 256 + i]) / 256);
  }
}

TEST("bnb_source: states that do not fit their tensors") {
  for (const auto& [part, replacement] : std::initializer_list<std::pair<const char*, const char*>>{
           {"nf4", "fp4"},
           {"\"quant_type\": \"nf4\", ", ""},
           {"\"blocksize\": 64", "\"blocksize\": 0"},
           {"\"blocksize\": 64", "\"blocksize\": 48"},
           {"\"blocksize\": 64", "\"blocksize\": 8192"},
           {"\"blocksize\": 64", "\"blocksize\": 64.5"},
           {"\"blocksize\": 64", "\"blocksize\": 32"},
           {"\"blocksize\": 64", "\"blocksize\": 128"},
           {"\"nested_blocksize\": 256", "\"nested_blocksize\": 128"},
           {"\"nested_blocksize\": 256", "\"nested_blocksize\": -1"},
           {"\"nested_blocksize\": 256, ", ""},
           {"0.25", "\"0.25\""},
           {"0.25", "1e999"},
           {"0.25", "1e300"},
           {"[256, 256]", "[256, 512]"},
           {"[256, 256]", "[0, 256]"},
           {"[256, 256]", "[-256, -256]"},
           {"[256, 256]", "[256]"},
           {"[256, 256]", "[9223372036854775807, 256]"},
           {"[256, 256]", "[256, 256, 1]"},
           {"\"dtype\": \"float32\"", "\"dtype\": \"int8\""},
           {"}", ""}}) {
    Tensors tensors = nested_tensors();
    tensors[kState] = text_tensor(state_with(part, replacement));
    check_refused(tensors);
  }
  Tensors sound = nested_tensors();
  sound[kState] = text_tensor(state_with("0.25", "0.25"));
  const test::TempDir directory;
  const Checkpoint checkpoint(directory.write("m.safetensors", checkpoint_bytes(sound)));
  CHECK_EQ(checkpoint.read(kNested).absmax.size(), 1024u);

  Tensors crossing = nested_tensors();
  crossing[kState] = text_tensor(state_with("[256, 256]", "[2048, 32]"));
  check_refused(crossing, ErrorCode::kModelUnsupported);
  Tensors bomb = nested_tensors();
  bomb[kState] = text_tensor(std::string(70000, ' '));
  check_refused(bomb);
}

TEST("bnb_source: tensors that are missing, cut, of another dtype or not finite") {
  const Tensors sound = nested_tensors();
  CHECK_EQ(sound.size(), 6u);
  for (const auto& [name, tensor] : sound) {
    Tensors missing = sound, cut = sound, retyped = sound;
    missing.erase(name);
    check_refused(missing);
    cut[name].bytes.resize(tensor.bytes.size() - 4);
    check_refused(cut);
    if (name == kNested) continue;  // the codes are bytes whatever their dtype says
    retyped[name].dtype = tensor.dtype == "F32" ? "U8" : "I8";
    check_refused(retyped);
    if (tensor.dtype != "F32") continue;
    Tensors infinite = sound;
    const float bad = HUGE_VALF;
    std::memcpy(infinite[name].bytes.data(), &bad, 4);
    check_refused(infinite);
  }
}
