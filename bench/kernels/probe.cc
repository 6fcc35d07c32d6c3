// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, with which every benchmark of the same run is compared: clock,
// multiply-adds a second of the widest integer dot product and of binary32 FMA on one and on all cores, and
// memory read bandwidth. Prints one JSON object.   maestrale_probe [threads]
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "base/thread_pool.h"

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Twelve independent chains hide the latency of the instruction; operands never leave registers.
#define CHAINS(op, reg)                                                                                \
  op " %%" reg "14,%%" reg "15,%%" reg "0\n" op " %%" reg "14,%%" reg "15,%%" reg "1\n" op " %%" reg   \
     "14,%%" reg "15,%%" reg "2\n" op " %%" reg "14,%%" reg "15,%%" reg "3\n" op " %%" reg "14,%%" reg \
     "15,%%" reg "4\n" op " %%" reg "14,%%" reg "15,%%" reg "5\n" op " %%" reg "14,%%" reg "15,%%" reg \
     "6\n" op " %%" reg "14,%%" reg "15,%%" reg "7\n" op " %%" reg "14,%%" reg "15,%%" reg "8\n" op    \
     " %%" reg "14,%%" reg "15,%%" reg "9\n" op " %%" reg "14,%%" reg "15,%%" reg "10\n" op " %%" reg  \
     "14,%%" reg "15,%%" reg "11\n"
#define CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

constexpr double kInterval = 0.2;  // seconds a probe runs

// Instructions a second, in units of 1e9.
template <class Block>
double rate(Block block) {
  const double start = seconds();
  long n = 0;
  while (seconds() - start < kInterval) {
    for (int i = 0; i < 1000; ++i) block();
    n += 12000;
  }
  return double(n) / (seconds() - start) / 1e9;
}

double vnni512() {
  return rate([] { asm volatile(CHAINS("vpdpbusd", "zmm")::: CLOBBERS); });
}
double maddubs256() {
  return rate([] { asm volatile(CHAINS("vpmaddubsw", "ymm")::: CLOBBERS); });
}
double bf16_512() {
  return rate([] { asm volatile(CHAINS("vdpbf16ps", "zmm")::: CLOBBERS); });
}
double fma512() {
  return rate([] { asm volatile(CHAINS("vfmadd231ps", "zmm")::: CLOBBERS); });
}
double fma256() {
  return rate([] { asm volatile(CHAINS("vfmadd231ps", "ymm")::: CLOBBERS); });
}

// Cycles a second: each of these waits for the one before and takes one cycle.
double clock_ghz() {
  uint64_t x = 1;
  return rate([&] {
    asm volatile(
        "neg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0\nneg %0"
        : "+r"(x));
  });
}

// Sum over `threads` threads running `probe` at the same time.
template <class Probe>
double together(int threads, Probe probe) {
  std::vector<double> results(static_cast<size_t>(threads));
  std::vector<std::thread> workers;
  for (int t = 0; t < threads; ++t) workers.emplace_back([&, t] { results[size_t(t)] = probe(); });
  for (std::thread& worker : workers) worker.join();
  double sum = 0;
  for (double result : results) sum += result;
  return sum;
}

// Best of three: threads may begin on one core.
template <class Probe>
double best_together(int threads, Probe probe) {
  double best = 0;
  for (int i = 0; i < 3; ++i) best = std::max(best, together(threads, probe));
  return best;
}

// Best of five passes over 1 GiB a thread, in GB/s.
double read_bandwidth(int threads) {
  const size_t bytes = size_t(1) << 30;
  char* data = static_cast<char*>(
      mmap(nullptr, bytes * size_t(threads), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (data == MAP_FAILED) return 0;
  madvise(data, bytes * size_t(threads), MADV_HUGEPAGE);
  std::memset(data, 1, bytes * size_t(threads));
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const double start = seconds();
    together(threads, [&, next = std::make_shared<std::atomic<int>>(0)] {
      const char* p = data + bytes * size_t(next->fetch_add(1));
      for (size_t i = 0; i < bytes; i += 256)
        asm volatile(
            "vmovdqa (%0),%%ymm0\nvmovdqa 64(%0),%%ymm1\nvmovdqa 128(%0),%%ymm2\nvmovdqa 192(%0),%%ymm3\n"
            :
            : "r"(p + i)
            : "xmm0", "xmm1", "xmm2", "xmm3");
      return 0.0;
    });
    best = std::max(best, double(bytes) * threads / (seconds() - start) / 1e9);
  }
  munmap(data, bytes * size_t(threads));
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : maestrale::available_cpus();
  const bool vnni = __builtin_cpu_supports("avx512vnni"), avx512 = __builtin_cpu_supports("avx512f");
  // Multiply-adds an instruction: 64 a zmm vpdpbusd, 32 a ymm vpmaddubsw, 16 or 8 an FMA.
  const double int8_one = vnni ? 64 * vnni512() : 32 * maddubs256();
  const double int8_all =
      vnni ? 64 * best_together(threads, vnni512) : 32 * best_together(threads, maddubs256);
  const bool bf16 = __builtin_cpu_supports("avx512bf16");
  const double bf16_all = bf16 ? 32 * best_together(threads, bf16_512) : 0;  // 32 multiply-adds a zmm
  const double f32_all = avx512 ? 16 * best_together(threads, fma512) : 8 * best_together(threads, fma256);
  std::printf(
      "{\"threads\": %d, \"clockGHz\": %.2f, \"int8GmacsOneCore\": %.0f, \"int8Gmacs\": %.0f, "
      "\"bf16Gmacs\": %.0f, \"f32Gmacs\": %.0f, \"readGBsOneCore\": %.1f, \"readGBs\": %.1f}\n",
      threads, clock_ghz(), int8_one, int8_all, bf16_all, f32_all, read_bandwidth(1),
      read_bandwidth(threads));
  return 0;
}
