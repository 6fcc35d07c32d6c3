// SPDX-License-Identifier: Apache-2.0
// Attention alone on the simulated GPU: keys that are divided among blocks give the bits of keys that are
// not, in whatever order the blocks finish, and launch after launch.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "cuda/attention.h"
#include "cuda_parts.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr int32_t kKvHeads = 2, kHeads = 8;
constexpr const char* kTypes[] = {"f16", "bf16", "q8_0"};  // by KvType

struct Case {
  KvType kv;
  int32_t head_dim;
  int64_t window;
};

// Bytes that are finite keys, values and scales of any type: as halves between 1 and 2 with a sign, as floats
// about 0.01.
Bytes random_cache(size_t n, std::mt19937& random) {
  Bytes bytes(n);
  for (size_t i = 0; i < n; ++i) {
    const uint8_t byte = uint8_t(random());
    bytes[i] = i % 2 == 0 ? byte : uint8_t((byte & 0x83) | 0x3c);
  }
  return bytes;
}

// Sequences that see from one chunk of 256 keys to ten, of rows for narrow blocks and for wide ones.
struct Rows {
  std::vector<PageId> pages = std::vector<PageId>(88);
  Batch batch;

  Rows() {
    std::iota(pages.begin(), pages.end(), 0);
    std::ranges::reverse(pages);
    const struct {
      int32_t n_rows;
      int64_t first_position;
    } sequences[] = {{1, 700}, {1, 100}, {1, 511}, {1, 2500}, {3, 510}, {20, 600}};
    size_t page = 0;
    for (const auto& [n_rows, position] : sequences) {
      const size_t n_pages = size_t((position + n_rows - 1) / kPagePositions + 1);
      batch.sequences.push_back(
          {batch.n_rows(), n_rows, position, 0, std::span(pages).subspan(page, n_pages)});
      batch.tokens.resize(batch.tokens.size() + size_t(n_rows));
      page += n_pages;
    }
  }
};

// What `launches` launches leave, on a GPU that is as `settings` say.
std::vector<std::vector<float>> attend(const std::string& settings, const Case& c, int launches) {
  use_simulator(settings.c_str());
  simulator<int()>("ptxsim_reset")();
  Gpu gpu;
  const Rows rows;
  const KvConfig config{1, kKvHeads, c.head_dim, c.kv, int64_t(rows.pages.size()), c.window};
  const KvCache cache(gpu.device, config);
  std::mt19937 random(3);
  const Bytes keys = random_cache(KvCache::page_bytes(config) * rows.pages.size(), random);
  MAESTRALE_CU(gpu.device, cuMemcpyHtoDAsync_v2, cache.address(), keys.data(), keys.size(),
               gpu.device.stream());
  const int64_t cols = int64_t(kHeads) * c.head_dim;
  const std::vector<float> x = random_floats(size_t(rows.batch.n_rows() * cols), random);
  const Tensor q = gpu.upload(x, cols);
  Attention attention(gpu.device, gpu.kernels);
  attention.configure(config);
  attention.begin(rows.batch);
  const auto address = [](Tensor t) { return DevicePointer(uintptr_t(t.data)); };
  std::vector<std::vector<float>> outs;
  for (int i = 0; i < launches; ++i) {
    const Tensor out = gpu.upload(std::vector<float>(x.size()), cols);
    attention.run(cache, 0, address(q), address(out), kHeads);
    outs.push_back(gpu.download<float>(out.data, x.size()));
  }
  return outs;
}

void check_division(const std::string& generation, const Case& c) {
  const std::string kernel =
      "attention_" + std::string(kTypes[size_t(c.kv)]) + (c.head_dim > 32 ? "_128_" : "_32_");
  const auto expect = [&](bool divided) {
    for (const char* rows : {"16", "64"}) {
      CHECK_EQ(counter(kernel + rows, "launches") > 0, !divided);
      CHECK_EQ(counter("split_" + kernel + rows, "launches") > 0, divided);
    }
  };
  // One multiprocessor has enough to do with a block for each sequence and KV head.
  const std::vector<float> want = attend(generation + ",sms=1", c, 1)[0];
  CHECK(std::ranges::all_of(want, [](float v) { return std::abs(v) < 1e3f; }));
  CHECK(size_t(std::ranges::count(want, 0.0f)) < want.size() / 500);  // in q8_0 a few sums cancel out
  expect(false);
  for (const char* seed : {",seed=1", ",seed=2,ctas=16", ",seed=3,ctas=1"}) {
    for (const std::vector<float>& got : attend(generation + ",sms=64" + seed, c, 2)) CHECK(got == want);
    expect(true);
  }
}

}  // namespace

TEST("cuda: divided keys give the bits of undivided ones, sm_80") {
  for (const KvType kv : {KvType::kF16, KvType::kQ8_0})
    for (const int64_t window : {0, 300}) check_division("cc=80", {kv, 128, window});
}

TEST("cuda: divided keys give the bits of undivided ones, sm_75 and work done at once") {
  for (const KvType kv : {KvType::kF16, KvType::kBF16, KvType::kQ8_0})
    check_division("cc=75,eager", {kv, 40, 300});
  check_division("cc=75,eager", {KvType::kF16, 24, 0});
}
