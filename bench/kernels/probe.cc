// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, with which every benchmark of the same run is compared: clock,
// multiply-adds a second of the widest integer dot product and of binary32 FMA on one and on all cores, and
// memory read bandwidth. Prints one JSON object; with "memory" only what may change from second to second.
//   maestrale_probe [threads] [memory]
#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/bandwidth.h"

using namespace maestrale;

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

// Of 128 MiB a thread: several times the last-level cache, and no more, since a hypervisor that takes freed
// memory back holds this machine up while it does, and when it has to find some again.
double read_gbs(int threads) { return read_bandwidth(threads, uint64_t(threads) << 27) / 1e9; }

// Nanoseconds until a cache line that another core has written is here, and back again. Where the cores share
// a cache it is short, and then they may share its way to memory as well: a virtual machine whose cores are
// moved about reads with one bandwidth or the other.
double core_round_trip() {
  constexpr int kTrips = 100000;
  struct alignas(128) Line {
    std::atomic<int> trip{0};
  } there, back;
  std::thread other([&] {
    for (int i = 1; i <= kTrips; ++i) {
      while (there.trip.load(std::memory_order_acquire) != i) {
      }
      back.trip.store(i, std::memory_order_release);
    }
  });
  const double start = seconds();
  for (int i = 1; i <= kTrips; ++i) {
    there.trip.store(i, std::memory_order_release);
    while (back.trip.load(std::memory_order_acquire) != i) {
    }
  }
  const double elapsed = seconds() - start;
  other.join();
  return elapsed / kTrips * 1e9;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : available_cpus();
  std::printf("{\"threads\": %d", threads);
  if (argc < 3 || std::string_view(argv[2]) != "memory") {
    const bool vnni = __builtin_cpu_supports("avx512vnni"), avx512 = __builtin_cpu_supports("avx512f");
    // Multiply-adds an instruction: 64 a zmm vpdpbusd, 32 a ymm vpmaddubsw, 16 or 8 an FMA.
    const double int8_one = vnni ? 64 * vnni512() : 32 * maddubs256();
    const double int8_all =
        vnni ? 64 * best_together(threads, vnni512) : 32 * best_together(threads, maddubs256);
    const bool bf16 = __builtin_cpu_supports("avx512bf16");
    const double bf16_all = bf16 ? 32 * best_together(threads, bf16_512) : 0;  // 32 multiply-adds a zmm
    const double f32_all = avx512 ? 16 * best_together(threads, fma512) : 8 * best_together(threads, fma256);
    std::printf(
        ", \"clockGHz\": %.2f, \"int8GmacsOneCore\": %.0f, \"int8Gmacs\": %.0f, \"bf16Gmacs\": %.0f, "
        "\"f32Gmacs\": %.0f, \"readGBsOneCore\": %.1f",
        clock_ghz(), int8_one, int8_all, bf16_all, f32_all, read_gbs(1));
  }
  std::printf(", \"readGBs\": %.1f, \"coreRoundTripNs\": %.0f}\n", read_gbs(threads),
              threads > 1 ? core_round_trip() : 0.0);
  return 0;
}
