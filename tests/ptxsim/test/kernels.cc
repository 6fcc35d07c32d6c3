// SPDX-License-Identifier: Apache-2.0
// Inputs and references. Sums are of small integers, so that every order of addition is exact.
#include "kernels.h"

#include <fstream>
#include <random>
#include <sstream>

#include "exec/numerics.h"
#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

std::vector<int> integers(size_t n, int low, int high, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int> v(n);
  for (int& x : v) x = low + int(random() % uint64_t(high - low + 1));
  return v;
}

bool row_sum(const std::string& ptx, const Options& options) {
  constexpr int n = 301, rows = 5;
  const auto x = integers(n * rows, -50, 50, 1);
  Simulation s(ptx);
  s.options = options;
  const uint64_t in = s.upload(std::vector<float>(x.begin(), x.end())),
                 out = s.upload(std::vector<float>(rows, -1));
  s.launch("row_sum", {rows}, {128}, 0, in, out, n);
  const auto got = s.download<float>(out, rows);
  for (int r = 0; r < rows; ++r) {
    int sum = 0;
    for (int i = 0; i < n; ++i) sum += x[size_t(r * n + i)];
    if (got[size_t(r)] != float(sum)) return false;
  }
  return true;
}

bool scan(const std::string& ptx, const Options& options) {
  const auto x = integers(256, 1, 9, 2);
  Simulation s(ptx);
  s.options = options;
  const uint64_t in = s.upload(x), out = s.upload(std::vector<int>(256, -1));
  s.launch("scan", {2}, {128}, 0, in, out);
  const auto got = s.download<int>(out, 256);
  for (size_t i = 0, sum = 0; i < 256; ++i) {
    if (i % 128 == 0) sum = i / 128 + 3;
    if (got[i / 128 * 128 + 127 - i % 128] != int(sum)) return false;
    sum += size_t(x[i]);
  }
  return true;
}

bool dot_int8(const std::string& ptx, const Options& options) {
  constexpr int words = 75, rows = 5;
  const auto a = integers(words * rows, -2000000000, 2000000000, 3),
             x = integers(words, -2000000000, 2000000000, 4);
  Simulation s(ptx);
  s.options = options;
  const uint64_t ap = s.upload(a), xp = s.upload(x), y = s.upload(std::vector<int>(rows, -1));
  const Counters c = s.launch("dot_int8", {(rows + 1) / 2}, {64}, 0, ap, xp, y, words, rows);
  const auto got = s.download<int>(y, rows);
  for (int r = 0; r < rows; ++r) {
    int sum = 0;
    for (int i = 0; i < words; ++i)
      for (int k = 0; k < 4; ++k)
        sum += int8_t(a[size_t(r * words + i)] >> (8 * k)) * int8_t(x[size_t(i)] >> (8 * k));
    if (got[size_t(r)] != sum) return false;
  }
  return c.dp4a == uint64_t(words * rows);
}

bool transpose(const std::string& ptx, const Options& options) {
  constexpr int rows = 45, cols = 70;
  const auto x = integers(rows * cols, 0, 1000000, 5);
  Simulation s(ptx);
  s.options = options;
  const uint64_t in = s.upload(x), out = s.upload(std::vector<int>(rows * cols, -1));
  s.launch("transpose", {3, 2}, {32, 8}, 0, in, out, rows, cols);
  const auto got = s.download<int>(out, rows * cols);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c)
      if (got[size_t(c * rows + r)] != x[size_t(r * cols + c)]) return false;
  return true;
}

bool last_block(const std::string& ptx, const Options& options) {
  constexpr int blocks = 6;
  const auto x = integers(blocks * 64, 1, 100, 6);
  Simulation s(ptx);
  s.options = options;
  const uint64_t in = s.upload(x), partial = s.reserve<int>(blocks), done = s.upload(std::vector<int>(1, 0)),
                 out = s.upload(std::vector<int>(1, -1));
  s.launch("last_block", {blocks}, {64}, 0, in, partial, done, out);
  int sum = 0;
  for (const int v : x) sum += v;
  return s.download<int>(out, 1)[0] == sum;
}

bool gemm(const std::string& ptx, const Options& options) {
  constexpr int k = 80;
  const auto a = integers(16 * k, -8, 8, 7), b = integers(8 * k, -8, 8, 8);
  const auto halves = [](const std::vector<int>& v) {
    std::vector<uint16_t> h;
    for (const int x : v) h.push_back(to_half(x));
    return h;
  };
  Simulation s(ptx);
  s.options = options;
  const uint64_t ap = s.upload(halves(a)), bp = s.upload(halves(b)),
                 cp = s.upload(std::vector<float>(128, -1));
  const Counters counters = s.launch("gemm", {1}, {32}, 0, ap, bp, cp, k);
  const auto got = s.download<float>(cp, 128);
  for (int r = 0; r < 16; ++r)
    for (int c = 0; c < 8; ++c) {
      int sum = 0;
      for (int i = 0; i < k; ++i) sum += a[size_t(r * k + i)] * b[size_t(c * k + i)];
      if (got[size_t(r * 8 + c)] != float(sum)) return false;
    }
  return counters.mma == k / 16;
}

}  // namespace

std::string kernel_text(int arch) {
  std::ifstream file(std::string(PTXSIM_KERNELS) + "/kernels_" + std::to_string(arch) + ".ptx");
  std::stringstream text;
  text << file.rdbuf();
  CHECK(file.good());
  return text.str();
}

const std::vector<int>& kernel_archs() {
  static const std::vector<int> archs = {75, 80, 90, 100};
  return archs;
}

const std::vector<KernelCase>& kernel_cases() {
  static const std::vector<KernelCase> cases = {{"row_sum", 75, row_sum},       {"scan", 75, scan},
                                                {"dot_int8", 75, dot_int8},     {"transpose", 75, transpose},
                                                {"last_block", 75, last_block}, {"gemm", 80, gemm}};
  return cases;
}

}  // namespace maestrale::ptxsim::test
