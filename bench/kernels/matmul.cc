// SPDX-License-Identifier: Apache-2.0
// One matrix product for every storage type and for 1 to 64 activation rows: multiply-adds a second and
// weight bytes a second. Weights of 4096 columns, which come from memory as in a model.
//   maestrale_bench_matmul [--isa NAME] [--threads 1] [--type NAME] [--rows N,N,...] [--cols N]      prints
//   CSV
#include "cpu/matmul.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/memory.h"
#include "base/thread_pool.h"
#include "cpu/isa.h"
#include "cpu/panel_layout.h"

using namespace maestrale;

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Far more than the last-level cache keeps from one repetition to the next; many rows read each weight from
// memory once in a long time, so that less will do.
constexpr uint64_t kWeightBytes = 768 << 20, kManyRowsBytes = 96 << 20;
constexpr int kManyRows = 16;

// Best of several repetitions, seconds.
double time_product(CpuMatmul& matmul, const Matrix& weight, int n_rows) {
  Buffer x(uint64_t(weight.cols * n_rows) * sizeof(float), "input"),
      out(uint64_t(weight.rows * n_rows) * sizeof(float), "output");
  std::mt19937 random(1);
  for (int64_t i = 0; i < weight.cols * n_rows; ++i)
    x.floats()[i] = float(int(random() % 2001)) / 1000.0f - 1.0f;
  const Projection projection{&weight, {out.floats(), weight.rows}};
  double best = 1e9, spent = 0;
  for (int repeat = 0; repeat < 2 || (spent < 0.2 && repeat < 200); ++repeat) {
    const double start = seconds();
    matmul.run({x.floats(), weight.cols}, n_rows, {&projection, 1}, false);
    const double elapsed = seconds() - start;
    spent += elapsed;
    best = std::min(best, elapsed);
  }
  return best;
}

std::vector<int> parse_list(const std::string& text) {
  std::vector<int> values;
  for (size_t at = 0; at < text.size();) {
    values.push_back(std::atoi(text.c_str() + at));
    const size_t comma = text.find(',', at);
    at = comma == std::string::npos ? text.size() : comma + 1;
  }
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa, only;
  std::vector<int> row_counts{1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 512};
  int threads = 1;
  int64_t cols = 4096;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--isa") isa = value;
    if (option == "--type") only = value;
    if (option == "--rows") row_counts = parse_list(value);
    if (option == "--cols") cols = std::atoi(value.c_str());
    if (option == "--threads") threads = std::atoi(value.c_str());
  }
  const Kernels& kernels = select_kernels(isa);
  ThreadPool pool(threads);
  CpuMatmul matmul(pool, kernels);
  std::printf("isa,threads,type,rows,microseconds,gmacs,weight_gbs\n");
  for (const QuantTraits& traits : kQuantTraits) {
    if (!only.empty() && only != traits.name) continue;
    const uint64_t stride = panel_bytes(traits.type, cols);
    Buffer weights(kWeightBytes, "weights");
    std::mt19937 random(1);
    constexpr uint64_t kPattern = 16 << 20;
    for (uint64_t i = 0; i < kPattern; i += 4) {
      const uint32_t bits =
          random() & 0x3fff3fff;  // halves and floats below 2, never NaN: denormals would slow things
      std::memcpy(weights.data() + i, &bits, 4);
    }
    for (uint64_t i = kPattern; i < kWeightBytes; i += kPattern)
      std::memcpy(weights.data() + i, weights.data(), kPattern);
    for (const int n_rows : row_counts) {
      const int64_t panels = int64_t((n_rows < kManyRows ? kWeightBytes : kManyRowsBytes) / stride);
      const Matrix weight{traits.type, panels * kPanelRows, cols, weights.data()};
      const double time = time_product(matmul, weight, n_rows);
      const double macs = double(weight.rows) * double(cols) * n_rows;
      std::printf("%s,%d,%s,%d,%.1f,%.1f,%.2f\n", kernels.name, threads, std::string(traits.name).c_str(),
                  n_rows, time * 1e6, macs / time / 1e9, double(panels) * double(stride) / time / 1e9);
      std::fflush(stdout);
    }
  }
  return 0;
}
