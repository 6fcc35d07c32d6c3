// SPDX-License-Identifier: Apache-2.0
// Attention of one layer with Mistral-7B's shapes (32 heads of 128, 8 KV heads): multiply-adds a second,
// scores and weighted values together, and bytes of the cache a second. A prompt's last 512 rows behind
// contexts of 512 to 4096 positions, and steps of one row for one sequence and for eight.
//   maestrale_bench_attention [--isa NAME] [--threads 1] [--kv f16|bf16|q8_0]      prints CSV
#include "cpu/attention.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "cpu/isa.h"

using namespace maestrale;

namespace {

constexpr int32_t kHeads = 32, kKvHeads = 8, kHeadDim = 128;
constexpr int32_t kLayers = 32;  // in turn, so that keys and values come from memory as in a model

struct Case {
  int32_t sequences, rows;  // rows of each sequence, the last ones of `context` positions
  int64_t context;
};
constexpr Case kCases[] = {{1, 512, 512}, {1, 512, 2048}, {1, 512, 4096},
                           {1, 1, 512},   {1, 1, 4096},   {8, 1, 512}};

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<float> noise(int64_t n, std::mt19937& random) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = float(int(random() % 2001)) / 1000.0f - 1.0f;
  return values;
}

// A cache whose pages all hold values, and the tables of `sequences` sequences.
struct Filled {
  Filled(const Kernels& kernels, KvType type, const Case& c) {
    const int64_t pages = (c.context + kPagePositions - 1) / kPagePositions;
    KvConfig config;
    config.type = type;
    config.n_layers = kLayers;
    config.n_kv_heads = kKvHeads;
    config.head_dim = kHeadDim;
    config.max_pages = int32_t(pages * c.sequences);
    cache = CpuKvCache(config);
    std::mt19937 random(1);
    const std::vector<float> values = noise(4096 + kHeadDim, random);
    for (PageId page = 0; page < config.max_pages; ++page)
      for (int32_t layer = 0; layer < kLayers; ++layer)
        for (int32_t head = 0; head < kKvHeads; ++head)
          for (int32_t slot = 0; slot < kPagePositions; ++slot)
            cache.append(kernels, page, layer, head, slot, &values[random() % 4096],
                         &values[random() % 4096]);
    for (int32_t s = 0; s < c.sequences; ++s) {
      for (int64_t p = 0; p < pages; ++p) table.push_back(PageId(s * pages + p));
    }
    batch.tokens.resize(size_t(c.sequences * c.rows));
    for (int32_t s = 0; s < c.sequences; ++s) {
      BatchSequence sequence;
      sequence.first_row = s * c.rows;
      sequence.n_rows = c.rows;
      sequence.first_position = c.context - c.rows;
      sequence.pages = std::span(table).subspan(size_t(s * pages), size_t(pages));
      batch.sequences.push_back(sequence);
    }
  }
  CpuKvCache cache;
  std::vector<PageId> table;
  Batch batch;
};

// Best of several repetitions, seconds.
double time_attention(CpuAttention& attention, const Filled& filled) {
  const int32_t rows = filled.batch.n_rows(), cols = kHeads * kHeadDim;
  std::mt19937 random(2);
  std::vector<float> q = noise(int64_t(rows) * cols, random), out(q.size());
  double best = 1e9, spent = 0;
  for (int repeat = 0; repeat < 2 || (spent < 0.5 && repeat < 500); ++repeat) {
    const double start = seconds();
    attention.run(filled.cache, filled.batch, repeat % kLayers, {q.data(), cols}, {out.data(), cols});
    const double elapsed = seconds() - start;
    spent += elapsed;
    best = std::min(best, elapsed);
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa, kv = "f16";
  int threads = 1;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--isa") isa = value;
    if (option == "--kv") kv = value;
    if (option == "--threads") threads = std::atoi(value.c_str());
  }
  const KvType type = kv == "q8_0" ? KvType::kQ8_0 : kv == "bf16" ? KvType::kBF16 : KvType::kF16;
  const Kernels& kernels = select_kernels(isa);
  ThreadPool pool(threads);
  CpuAttention attention(pool, kernels);
  std::printf("isa,threads,kv,sequences,rows,context,microseconds,gmacs,cache_gbs\n");
  for (const Case& c : kCases) {
    const Filled filled(kernels, type, c);
    const double time = time_attention(attention, filled);
    const double visible = double(c.rows) * double(c.context - c.rows) + double(c.rows) * (c.rows + 1) / 2;
    const double macs = 2.0 * c.sequences * visible * kHeads * kHeadDim;
    const double bytes =
        2.0 * c.sequences * double(c.context) * kKvHeads * kHeadDim * (type == KvType::kQ8_0 ? 1 : 2);
    std::printf("%s,%d,%s,%d,%d,%lld,%.1f,%.1f,%.2f\n", kernels.name, threads, kv.c_str(), c.sequences,
                c.rows, static_cast<long long>(c.context), time * 1e6, macs / time / 1e9, bytes / time / 1e9);
    std::fflush(stdout);
  }
  return 0;
}
