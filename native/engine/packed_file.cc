// SPDX-License-Identifier: Apache-2.0
#include "engine/packed_file.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/integer.h"
#include "cpu/panel_layout.h"
#include "cpu/unpack.h"
#include "io/atomic_file.h"
#include "model/gguf_weights.h"

namespace maestrale {
namespace {

// Counts changes of panel_layout.h, of the order of loading and of this format.
constexpr uint32_t kLayoutVersion = 2;
constexpr uint32_t kByteOrder = 0x01020304;
constexpr char kMagic[8] = {'M', 'A', 'E', 'S', 'T', 'R', 'A', 'L'};

struct Header {
  char magic[8];
  uint32_t byte_order, layout;
  uint64_t file_size, source_size, gguf_size, norms_size, weights_size;
  uint64_t checksum;
};
static_assert(sizeof(Header) == 64);

uint64_t norms_at(const Header& h) { return round_up(sizeof(Header) + h.gguf_size, 64); }
uint64_t weights_at(const Header& h) { return round_up(norms_at(h) + h.norms_size, 4096); }
uint64_t end_of(const Header& h) { return weights_at(h) + h.weights_size; }

uint64_t fnv1a(std::span<const std::byte> bytes, uint64_t hash) {
  for (const std::byte b : bytes) hash = (hash ^ uint64_t(b)) * 0x100000001b3u;
  return hash;
}

uint64_t checksum(const Header& header, std::span<const std::byte> gguf, std::span<const std::byte> norms) {
  const auto fields = std::as_bytes(std::span(&header, 1)).first(offsetof(Header, checksum));
  return fnv1a(norms, fnv1a(gguf, fnv1a(fields, 0xcbf29ce484222325u)));
}

[[noreturn]] void fail(const MappedFile& file, const std::string& problem) {
  throw Error(ErrorCode::kModelFormat, "'" + file.path() + "' " + problem);
}

Header read_header(const MappedFile& file) {
  const uint64_t size = file.size();
  Header h;
  if (size < sizeof h)
    fail(file, "is cut off: it has " + std::to_string(size) + " bytes, less than a header");
  std::memcpy(&h, file.bytes().data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, sizeof kMagic) != 0) fail(file, "is no packed model");
  if (h.byte_order != kByteOrder) fail(file, "was packed on a machine of another byte order, pack it again");
  if (h.layout != kLayoutVersion)
    fail(file, "was packed by another version (layout " + std::to_string(h.layout) + ", this one has " +
                   std::to_string(kLayoutVersion) + "), pack it again");
  // No part is longer than the file, so the sums below cannot overflow: file sizes fit in 63 bits.
  for (const uint64_t part : {h.gguf_size, h.norms_size, h.weights_size})
    if (part > size)
      fail(file, "has a part of " + std::to_string(part) + " bytes, but only " + std::to_string(size) +
                     " bytes in all");
  if (h.file_size != size)
    fail(file, "has " + std::to_string(size) + " bytes, but was packed with " + std::to_string(h.file_size));
  if (end_of(h) != size)
    fail(file, "has parts that end at byte " + std::to_string(end_of(h)) + " of " + std::to_string(size));
  return h;
}

// Rows that lie one after the other.
class StoredRows final : public MatrixSource {
 public:
  StoredRows(QuantType quant_type, const ModelTensor& tensor, const std::byte* at)
      : MatrixSource(quant_type, tensor.rows, tensor.cols), rows_(at) {}
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    const uint64_t row = row_bytes(type, uint64_t(cols));
    std::memcpy(out, rows_ + uint64_t(first_row) * row, size_t(uint64_t(n_rows) * row));
  }

 private:
  const std::byte* const rows_;
};

class PanelRows final : public MatrixSource {
 public:
  PanelRows(QuantType quant_type, const ModelTensor& tensor, const std::byte* at)
      : MatrixSource(quant_type, tensor.rows, tensor.cols), panels_(at) {}
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override {
    const uint64_t panel = panel_bytes(type, cols), row = row_bytes(type, uint64_t(cols));
    for (int64_t at = first_row, end = first_row + n_rows; at < end;) {
      const int64_t in_panel = at % kPanelRows, n = std::min(kPanelRows - in_panel, end - at);
      unpack_rows(type, panels_ + uint64_t(at / kPanelRows) * panel, int(in_panel), int(n), cols, out);
      out += uint64_t(n) * row;
      at += n;
    }
  }

 private:
  const std::byte* const panels_;
};

}  // namespace

bool PackedFile::has_magic(const MappedFile& file) {
  return file.size() >= sizeof kMagic && std::memcmp(file.bytes().data(), kMagic, sizeof kMagic) == 0;
}

PackedFile::PackedFile(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {
  const Header h = read_header(*file_);
  const std::span<const std::byte> gguf = file_->bytes().subspan(sizeof h, size_t(h.gguf_size));
  norms_ = file_->bytes().subspan(size_t(norms_at(h)), size_t(h.norms_size));
  weights_ = file_->bytes().subspan(size_t(weights_at(h)), size_t(h.weights_size));
  if (checksum(h, gguf, norms_) != h.checksum) fail(*file_, "is damaged: its checksum is wrong");
  gguf_ = GgufFile::parse(gguf, h.source_size);
}

PackedWeights::PackedWeights(const PackedFile& packed, const ModelConfig& config)
    : WeightStore(GgufWeights(*packed.file(), packed.gguf(), config).tensors()), packed_(packed) {
  const bool tied = tensors().back().role != TensorRole::kOutput;
  uint64_t norms = 0, weights = 0;
  for (const ModelTensor& tensor : tensors()) {
    const QuantType stored = type(tensor);
    offsets_[tensor.name] = tensor.is_norm() ? norms : weights;
    if (tensor.is_norm()) {
      norms += row_bytes(stored, uint64_t(tensor.cols));
      continue;
    }
    const bool embedding = tensor.role == TensorRole::kTokenEmbedding;
    if (embedding) weights += cpu_table_bytes(stored, tensor.rows, tensor.cols);
    if (!embedding || tied) weights += cpu_matrix_bytes(stored, tensor.rows, tensor.cols);
  }
  const auto check = [&](const char* what, uint64_t has, uint64_t needs) {
    if (has != needs)
      fail(*packed.file(), "holds " + std::to_string(has) + " bytes of " + what + ", but the model takes " +
                               std::to_string(needs));
  };
  check("norms", packed.norms().size(), norms);
  check("weights", packed.weights().size(), weights);
}

QuantType PackedWeights::type(const ModelTensor& tensor) const {
  return tensor.is_norm() ? QuantType::kF32 : packed_.gguf().find_tensor(tensor.name)->type;
}

std::unique_ptr<const MatrixSource> PackedWeights::open(const ModelTensor& tensor) const {
  const uint64_t at = offsets_.at(tensor.name);
  const QuantType stored = type(tensor);
  if (tensor.is_norm()) return std::make_unique<StoredRows>(stored, tensor, packed_.norms().data() + at);
  const std::byte* weights = packed_.weights().data() + at;
  if (tensor.role == TensorRole::kTokenEmbedding)
    return std::make_unique<StoredRows>(stored, tensor, weights);
  return std::make_unique<PanelRows>(stored, tensor, weights);
}

std::unique_ptr<Model> load_packed_model(const PackedFile& packed, ModelConfig config, CpuOptions options,
                                         const LoadCallbacks& callbacks) {
  const PackedWeights weights(packed, config);
  options.weights = packed.weights();
  options.weights_owner = packed.file();
  return load_model(weights, std::move(config), make_cpu_backend(options), callbacks);
}

void pack_model(const std::string& in, const std::string& out, const LoadCallbacks& callbacks) {
  const MappedFile file(in);
  std::error_code absent;
  if (std::filesystem::equivalent(in, out, absent))
    throw Error(ErrorCode::kInvalidArg, "'" + out + "' is the file to be packed");
  if (PackedFile::has_magic(file)) throw Error(ErrorCode::kInvalidArg, "'" + in + "' is packed already");
  const GgufFile gguf = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(gguf);
  const GgufWeights weights(file, gguf, config);
  const std::unique_ptr<Model> model = load_model(weights, config, make_cpu_backend({}), callbacks);

  std::vector<float> norms;
  for (const ModelTensor& tensor : weights.tensors())
    if (tensor.is_norm()) {
      const std::vector<float> values = read_norm(weights, tensor);
      norms.insert(norms.end(), values.begin(), values.end());
    }
  const std::span<const std::byte> panels = cpu_weights(model->backend());
  uint64_t gguf_size = file.size();
  for (const GgufTensor& tensor : gguf.tensors()) gguf_size = std::min(gguf_size, tensor.offset);
  const auto gguf_bytes = file.bytes().first(size_t(gguf_size));
  const auto norm_values = std::as_bytes(std::span(norms));

  Header header{{},        kByteOrder,         kLayoutVersion, 0, file.size(),
                gguf_size, norm_values.size(), panels.size(),  0};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.file_size = end_of(header);
  header.checksum = checksum(header, gguf_bytes, norm_values);
  AtomicFile target(out, [&] { check_cancelled(callbacks); });
  target.write(std::as_bytes(std::span(&header, 1)));
  target.write(gguf_bytes);
  target.pad_to(norms_at(header));
  target.write(norm_values);
  target.pad_to(weights_at(header));
  target.write(panels);
  target.commit();
}

}  // namespace maestrale
