// SPDX-License-Identifier: Apache-2.0
#include "cuda/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <span>
#include <string>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr int64_t kChunk = 256;                // positions, as in the kernel
constexpr int32_t kMatrixRows[2] = {16, 64};   // of a block
constexpr int64_t kFullBlocks = 4;             // blocks for each multiprocessor are enough without a split
constexpr uint64_t kMostPartials = 64u << 20;  // bytes

// Without a window every key is visible.
int64_t window_of(const KvConfig& c) { return c.sliding_window > 0 ? c.sliding_window : int64_t(1) << 40; }

uint64_t bytes_of(const KvConfig& c, int64_t tiles, int64_t chunks, int64_t matrix_rows) {
  return uint64_t(tiles * c.n_kv_heads * chunks * matrix_rows * (c.head_dim + 2)) * sizeof(float);
}

}  // namespace

int64_t Attention::most_tiles(const KvConfig& config) const {
  return kFullBlocks * device_.multiprocessors() / config.n_kv_heads + 1;
}

uint64_t Attention::arrival_bytes(const KvConfig& config) const {
  return uint64_t(most_tiles(config) * config.n_kv_heads) * sizeof(int32_t);
}

uint64_t Attention::partial_bytes(const KvConfig& config) const {
  const int64_t longest =
      config.longest_sequence > 0 ? config.longest_sequence : config.max_pages * kPagePositions;
  const int64_t seen = std::min(window_of(config), longest);
  const int64_t chunks = int64_t(std::bit_ceil(uint64_t(seen / kChunk + 2)));
  return std::min(bytes_of(config, most_tiles(config), chunks, kMatrixRows[0]), kMostPartials);
}

void Attention::configure(const KvConfig& config) {
  partials_ = DeviceBuffer(device_, partial_bytes(config), "attention");
  arrivals_ = zeros_on(device_, arrival_bytes(config), "attention");
  const auto load = [&](const auto& kernels) {
    for (const auto& kernel : kernels[size_t(config.type)][config.head_dim > 32]) kernel.load();
  };
  load(kernels_.attention);
  load(kernels_.split_attention);
}

void Attention::add_tiles(const KvConfig& config, const BatchSequence& sequence, int32_t table,
                          int32_t group) {
  Part& part = parts_[sequence.n_rows * group > kMatrixRows[0]];
  const int32_t rows_at_once = kMatrixRows[&part - parts_] / group;
  for (int32_t first = 0; first < sequence.n_rows; first += rows_at_once) {
    const int32_t n = std::min(rows_at_once, sequence.n_rows - first);
    const int64_t position = sequence.first_position + first;
    part.tiles.push_back({sequence.first_row + first, n, position, int32_t(sequence.first_page), table});
    const int64_t first_chunk = std::max<int64_t>(0, position - window_of(config) + 1) / kChunk;
    part.chunks = std::max(part.chunks, (position + n - 1) / kChunk - first_chunk + 1);
    part.most_rows = std::max(part.most_rows, n);
  }
}

void Attention::plan(const KvConfig& config, int32_t group) {
  if (group > kMatrixRows[0])
    throw Error(ErrorCode::kModelUnsupported, std::to_string(group) +
                                                  " query heads share a KV head, on CUDA it may be " +
                                                  std::to_string(kMatrixRows[0]));
  group_ = group;
  for (Part& part : parts_) part = {};
  uint64_t n_pages = 0;
  for (const BatchSequence& sequence : batch_->sequences) {
    add_tiles(config, sequence, int32_t(n_pages), group);
    n_pages += sequence.pages.size();
  }
  const size_t n_tiles = parts_[0].tiles.size() + parts_[1].tiles.size();
  const uint64_t bytes = n_tiles * sizeof(QueryTile) + n_pages * sizeof(PageId);
  std::byte* to = plan_.prepare(bytes);
  const auto append = [&](const auto& values) {
    to =
        std::ranges::copy(std::as_bytes(std::span(values)), to).out;  // memcpy may not copy nothing from null
  };
  for (const Part& part : parts_) append(part.tiles);
  for (const BatchSequence& sequence : batch_->sequences) append(sequence.pages);
  parts_[0].at = plan_.send(bytes);
  parts_[1].at = parts_[0].at + parts_[0].tiles.size() * sizeof(QueryTile);
  pages_ = parts_[0].at + n_tiles * sizeof(QueryTile);
}

void Attention::run(const KvCache& cache, int32_t layer, DevicePointer q, DevicePointer out, int32_t heads) {
  const int32_t group = heads / cache.config().n_kv_heads;
  if (group_ != group) plan(cache.config(), group);
  for (int width = 0; width < 2; ++width)
    if (!parts_[width].tiles.empty()) launch(parts_[width], width, cache, layer, q, out);
}

void Attention::launch(const Part& part, int width, const KvCache& cache, int32_t layer, DevicePointer q,
                       DevicePointer out) const {
  const KvConfig& kv = cache.config();
  const int64_t tiles = int64_t(part.tiles.size()), window = window_of(kv);
  const int32_t matrix_rows = part.most_rows * group_;
  // A power of two, so that decoding steps remain the same launches for long; chunks that are not there cost
  // little.
  const int64_t most_chunks = int64_t(std::bit_ceil(uint64_t(part.chunks)));
  const bool split = most_chunks > 1 && tiles * kv.n_kv_heads < kFullBlocks * device_.multiprocessors() &&
                     bytes_of(kv, tiles, most_chunks, matrix_rows) <= partials_.bytes();
  // Scores are exponents of 2.
  const float scale = float(std::numbers::log2e / std::sqrt(double(kv.head_dim)));
  const auto launch_with = [&](const auto& kernels, int64_t chunks, auto... more) {
    kernels[size_t(kv.type)][kv.head_dim > 32][size_t(width)](
        {.x = tiles, .y = kv.n_kv_heads, .block = 2 * kMatrixRows[width], .z = chunks}, q, out, part.at,
        pages_, cache.address(), cache.page_stride(), cache.layer_at(layer), group_, kv.head_dim, window,
        scale, more...);
  };
  if (split)
    launch_with(kernels_.split_attention, most_chunks, partials_.address(), arrivals_.address(), matrix_rows);
  else
    launch_with(kernels_.attention, 1);
}

}  // namespace maestrale::cuda
