// SPDX-License-Identifier: Apache-2.0
#include "model/adapter_file.h"

#include <cmath>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "model/gguf_adapter.h"
#include "model/peft_adapter.h"
#include "quant/dequantize.h"

namespace maestrale {
namespace {

constexpr int64_t kMostRank = 1024;  // bounds the memory of a batch's intermediate products

void check_ranks(const AdapterFile& adapter) {
  for (const AdapterDelta& delta : adapter.deltas)
    if (delta.rank() > kMostRank)
      throw Error(ErrorCode::kAdapter, "the adapter of '" + delta.target.name + "' has rank " +
                                           std::to_string(delta.rank()) + ", more than " +
                                           std::to_string(kMostRank));
}

AdapterFile read_any(const std::string& path, const ModelConfig& config) {
  std::error_code ignored;  // what cannot be examined is opened as a file, which says why
  if (std::filesystem::is_directory(path, ignored)) return read_peft_adapter(path, config);
  auto file = std::make_shared<const MappedFile>(path);
  if (path.ends_with(".safetensors"))
    throw Error(ErrorCode::kAdapter, "name the directory that holds it and its adapter_config.json");
  return read_gguf_adapter(std::move(file), config);
}

}  // namespace

AdapterFile read_adapter_file(const std::string& path, const ModelConfig& config) {
  try {
    AdapterFile adapter = read_any(path, config);
    check_ranks(adapter);
    return adapter;
  } catch (const Error& error) {
    throw about_adapter(path, error);
  }
}

Error about_adapter(const std::string& path, const Error& error) {
  switch (error.code()) {
    case ErrorCode::kAdapter:
    case ErrorCode::kModelFormat:  // readers of formats do not know what they read for
    case ErrorCode::kModelUnsupported:
      return Error(ErrorCode::kAdapter, "adapter '" + path + "': " + error.message());
    default: return error;
  }
}

std::vector<float> read_finite(const MatrixSource& source, const std::string& name) {
  const uint64_t stride = row_bytes(source.type, uint64_t(source.cols));
  std::vector<std::byte> row(stride);
  std::vector<float> values(size_t(source.rows * source.cols));
  for (int64_t r = 0; r < source.rows; ++r) {
    source.read_rows(r, 1, row.data());
    float* out = values.data() + r * source.cols;
    dequantize_row(source.type, row.data(), source.cols, out);
    for (int64_t c = 0; c < source.cols; ++c)
      if (!std::isfinite(out[c]))
        throw Error(ErrorCode::kAdapter, "element " + std::to_string(c) + " of row " + std::to_string(r) +
                                             " of " + name + " is not a finite number");
  }
  return values;
}

}  // namespace maestrale
