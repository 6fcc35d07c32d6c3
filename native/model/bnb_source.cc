// SPDX-License-Identifier: Apache-2.0
// Reads the quantisation state of bitsandbytes matrices; every tensor's dtype and size is checked against the
// shape before it is read.
#include "model/bnb_source.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <span>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "quant/quantize.h"

namespace maestrale {

namespace {

constexpr uint64_t kMaxStateBytes = 65536;

[[noreturn]] void fail(const std::string& name, const std::string& problem,
                       ErrorCode code = ErrorCode::kModelFormat) {
  throw Error(code, "4-bit matrix '" + name + "' " + problem);
}

const SafetensorsTensor& require(const SafetensorsFile& header, const std::string& name) {
  const SafetensorsTensor* tensor = header.find(name);
  if (tensor == nullptr)
    throw Error(ErrorCode::kModelFormat, "tensor '" + name + "' is missing from the file");
  return *tensor;
}

// All `count` values of a tensor of dtype F32 or U8, T = float or uint8_t.
template <class T>
std::vector<T> read_values(const MappedFile& file, const SafetensorsTensor& tensor, uint64_t count) {
  constexpr SafetensorsDtype kDtype = sizeof(T) == 4 ? SafetensorsDtype::kF32 : SafetensorsDtype::kU8;
  if (tensor.dtype != kDtype || tensor.bytes != count * sizeof(T))
    fail(tensor.name, "should be " + std::to_string(count) + " values of " + std::string(dtype_name(kDtype)) +
                          ", but has dtype " + std::string(dtype_name(tensor.dtype)) + " and " +
                          std::to_string(tensor.bytes) + " bytes");
  std::vector<T> values(count);
  file.read(tensor.offset, std::as_writable_bytes(std::span(values)));
  return values;
}

std::vector<float> finite(const SafetensorsTensor& tensor, std::vector<float> values) {
  for (float value : values)
    if (!std::isfinite(value)) fail(tensor.name, "holds a value that is not finite");
  return values;
}

std::vector<float> read_finite(const MappedFile& file, const SafetensorsTensor& tensor, uint64_t count) {
  return finite(tensor, read_values<float>(file, tensor, count));
}

// The members of the quant_state, each of which must be there.
class State {
 public:
  State(const MappedFile& file, const SafetensorsTensor& tensor) : name_(tensor.name) {
    if (tensor.bytes > kMaxStateBytes)
      fail(name_, "is a JSON text of " + std::to_string(tensor.bytes) + " bytes");
    const std::vector<uint8_t> text = read_values<uint8_t>(file, tensor, tensor.bytes);
    json_ = Json::parse({reinterpret_cast<const char*>(text.data()), text.size()});
  }

  bool has(const char* key) const { return json_.find(key) != nullptr; }

  std::string text(const char* key) const {
    const Json* value = json_.find(key);
    if (value == nullptr || value->string() == nullptr) fail(name_, std::string("has no text '") + key + "'");
    return *value->string();
  }

  double number(const char* key) const {
    const Json* value = json_.find(key);
    if (value == nullptr || !value->number()) fail(name_, std::string("has no number '") + key + "'");
    return *value->number();
  }

  // A block size as bitsandbytes allows it.
  int64_t block_size(const char* key) const {
    const Json* value = json_.find(key);
    const int64_t size = value != nullptr ? value->integer().value_or(0) : 0;
    if (size < 32 || size > 4096 || !std::has_single_bit(uint64_t(size)))
      fail(name_, std::string("has a '") + key + "' that is no power of two from 32 to 4096");
    return size;
  }

  std::pair<int64_t, int64_t> shape() const {
    const Json* value = json_.find("shape");
    const Json::Array* sides = value != nullptr ? value->array() : nullptr;
    if (sides == nullptr || sides->size() != 2) fail(name_, "has no 'shape' of two sides");
    const int64_t rows = (*sides)[0].integer().value_or(0), cols = (*sides)[1].integer().value_or(0);
    int64_t product;
    if (rows <= 0 || cols <= 0 || __builtin_mul_overflow(rows, cols, &product))
      fail(name_, "has a 'shape' that is no size of a matrix");
    return {rows, cols};
  }

  QuantType dtype() const {
    const std::string dtype = text("dtype");
    if (dtype == "bfloat16") return QuantType::kBF16;
    if (dtype == "float16") return QuantType::kF16;
    if (dtype == "float32") return QuantType::kF32;
    fail(name_, "has the 'dtype' '" + dtype.substr(0, 32) + "', which is none of bfloat16, float16, float32");
  }

 private:
  const std::string name_;
  Json json_;
};

std::vector<float> read_absmax(const MappedFile& file, const SafetensorsFile& header, const std::string& name,
                               const State& state, uint64_t blocks) {
  const SafetensorsTensor& absmax = require(header, name + ".absmax");
  if (!state.has("nested_blocksize")) return read_finite(file, absmax, blocks);
  const uint64_t nested_block = uint64_t(state.block_size("nested_blocksize"));
  const auto nested =
      read_finite(file, require(header, name + ".nested_absmax"), (blocks + nested_block - 1) / nested_block);
  const auto map = read_finite(file, require(header, name + ".nested_quant_map"), 256);
  const auto codes = read_values<uint8_t>(file, absmax, blocks);
  return finite(absmax, dequantize_scales(std::span<const float, 256>(map.data(), 256), codes, nested,
                                          nested_block, float(state.number("nested_offset"))));
}

}  // namespace

bool is_four_bit(const SafetensorsFile& header, const std::string& name) {
  return header.find(name + ".quant_state.bitsandbytes__nf4") != nullptr ||
         header.find(name + ".quant_state.bitsandbytes__fp4") != nullptr;
}

FourBitMatrix read_four_bit(const MappedFile& file, const SafetensorsFile& header, const std::string& name) {
  FourBitMatrix matrix;
  const std::string state_prefix = name + ".quant_state.bitsandbytes__";
  matrix.type = header.find(state_prefix + "nf4") != nullptr ? FourBitType::kNF4 : FourBitType::kFP4;
  const std::string type_name = matrix.type == FourBitType::kNF4 ? "nf4" : "fp4";
  const State state(file, require(header, state_prefix + type_name));
  if (state.text("quant_type") != type_name)
    fail(name, "has a quant_state of type " + type_name + " that calls itself '" +
                   state.text("quant_type").substr(0, 32) + "'");
  matrix.dtype = state.dtype();
  matrix.block_size = state.block_size("blocksize");
  std::tie(matrix.rows, matrix.cols) = state.shape();
  if (matrix.cols % matrix.block_size != 0)
    fail(name,
         "has " + std::to_string(matrix.cols) + " columns in blocks of " + std::to_string(matrix.block_size) +
             "; blocks that cross rows are not supported",
         ErrorCode::kModelUnsupported);

  const uint64_t weights = uint64_t(matrix.rows) * uint64_t(matrix.cols);
  const SafetensorsTensor& codes = require(header, name);
  if (codes.bytes != weights / 2)
    fail(name, "is " + std::to_string(codes.bytes) + " bytes of codes, but its shape needs " +
                   std::to_string(weights / 2));
  matrix.codes_offset = codes.offset;
  const std::vector<float> table = read_finite(file, require(header, name + ".quant_map"), 16);
  std::copy(table.begin(), table.end(), matrix.table.begin());
  matrix.absmax = read_absmax(file, header, name, state, weights / uint64_t(matrix.block_size));
  return matrix;
}

namespace {

void check_rows(const MatrixSource& source, int64_t first_row, int64_t n_rows) {
  if (first_row < 0 || n_rows < 0 || first_row > source.rows || n_rows > source.rows - first_row)
    throw Error(ErrorCode::kInternal, "rows " + std::to_string(first_row) + " to " +
                                          std::to_string(first_row + n_rows) + " were asked of a matrix of " +
                                          std::to_string(source.rows));
}

constexpr QuantType block_type(FourBitType type) {
  return type == FourBitType::kNF4 ? QuantType::kNF4 : QuantType::kFP4;
}

// Codes and scales as they are, side by side. Larger blocks of the file become several of ours.
class FourBitBlocks final : public MatrixSource {
 public:
  FourBitBlocks(const MappedFile& file, FourBitMatrix matrix)
      : MatrixSource(block_type(matrix.type), matrix.rows, matrix.cols),
        file_(file),
        matrix_(std::move(matrix)) {}

  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    check_rows(*this, first_row, n_rows);
    const size_t row_codes = size_t(cols / 2), block_codes = kFourBitBlock / 2;
    const int64_t blocks = cols / kFourBitBlock, shared = matrix_.block_size / kFourBitBlock;
    std::vector<std::byte> codes(row_codes);
    for (int64_t row = first_row; row < first_row + n_rows; ++row) {
      file_.read(matrix_.codes_offset + uint64_t(row) * row_codes, codes);
      for (int64_t b = 0; b < blocks; ++b, out += sizeof(BlockNF4)) {
        std::memcpy(out, &matrix_.absmax[size_t((row * blocks + b) / shared)], sizeof(float));
        std::memcpy(out + sizeof(float), &codes[size_t(b) * block_codes], block_codes);
      }
    }
  }

 private:
  const MappedFile& file_;
  const FourBitMatrix matrix_;
};

}  // namespace

std::unique_ptr<const MatrixSource> open_four_bit(const MappedFile& file, FourBitMatrix matrix) {
  const bool small = std::all_of(matrix.absmax.begin(), matrix.absmax.end(),
                                 [](float scale) { return std::fabs(scale) <= kLargestFourBitScale; });
  if (small && matrix.table == four_bit_table(matrix.type) && matrix.block_size % kFourBitBlock == 0)
    return std::make_unique<FourBitBlocks>(file, std::move(matrix));
  return std::make_unique<FourBitSource>(file, std::move(matrix));
}

FourBitSource::FourBitSource(const MappedFile& file, FourBitMatrix matrix)
    : MatrixSource(matrix.dtype, matrix.rows, matrix.cols), file_(file), matrix_(std::move(matrix)) {}

void FourBitSource::read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const {
  check_rows(*this, first_row, n_rows);
  const int64_t block_size = matrix_.block_size, blocks = cols / block_size;
  std::vector<uint8_t> codes(static_cast<size_t>(cols / 2));
  std::vector<float> weights(static_cast<size_t>(cols));
  for (int64_t row = first_row; row < first_row + n_rows; ++row, out += row_bytes(type, uint64_t(cols))) {
    file_.read(matrix_.codes_offset + uint64_t(row) * codes.size(), std::as_writable_bytes(std::span(codes)));
    for (int64_t b = 0; b < blocks; ++b)
      dequantize_four_bit(matrix_.table, matrix_.absmax[size_t(row * blocks + b)],
                          &codes[size_t(b * block_size / 2)], int(block_size),
                          &weights[size_t(b * block_size)]);
    quantize_row(type, weights.data(), cols, out);
  }
}

}  // namespace maestrale
