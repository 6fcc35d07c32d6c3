// SPDX-License-Identifier: Apache-2.0
// What is said of a GPU's memory: the limit by its clock and width, and the weights that are read to measure
// it. How fast that was is the simulator's own time and is not looked at.
#include "check.h"
#include "cuda/device_list.h"
#include "cuda/read_speed.h"
#include "cuda/tile_layout.h"
#include "expect_error.h"
#include "simulated_gpu.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr const char* kSettings = "cc=80,memory=8g,races=0,memclock=7000000,buswidth=256,l2=4m,quiet,count=1";

uint64_t counted(const char* name) { return uint64_t(counter("matmul_row_q4_k", name)); }

uint64_t limit_of(const char* settings) {
  use_simulator(settings);
  return cuda::list_devices().devices.at(0).memory_bandwidth;
}

}  // namespace

TEST(
    "cuda: the limit of a card's memory is two bits a clock and wire, and unknown where the driver says so") {
  CHECK_EQ(limit_of("memclock=9751000,buswidth=384"), 936'096'000'000u);     // RTX 3090
  CHECK_EQ(limit_of("memclock=2619000,buswidth=5120"), 3'352'320'000'000u);  // H100 SXM
  CHECK_EQ(limit_of("memclock=0"), 0u);
  CHECK_EQ(limit_of("memclock=-1"), 0u);
  CHECK_EQ(limit_of("memclock=7000000,buswidth=0"), 0u);
}

TEST("cuda: a pass reads each weight once, of one matrix and of several") {
  use_simulator(kSettings);
  const cuda::Device device(0);
  const cuda::KernelModule module(device);
  constexpr uint64_t kStripe = 16 * cuda::TileQ4_K::kBytes, kMatrix = 14336 / 16 * kStripe;
  constexpr uint64_t kActivations = 16 * (cuda::kRecordBytes - 32);  // no sums of 16 codes
  const struct {
    uint64_t asked, bytes, launches;  // of a pass
  } cases[] = {{1, kStripe, 1}, {1 << 20, 29 * kStripe, 1}, {kMatrix + 1, kMatrix + kStripe, 2}};
  for (const auto& c : cases) {
    const cuda::WeightReader reader(device, module, c.asked);
    CHECK_EQ(reader.bytes(), c.bytes);
    simulator<int()>("ptxsim_reset")();
    CHECK(reader.seconds(1) > 0);
    const uint64_t launches = counted("launches"), passes = launches / c.launches;
    CHECK(launches > 0);
    CHECK_EQ(passes * c.launches, launches);
    CHECK_EQ(32 * counted("uniqueReadSectors"), passes * c.bytes + launches * kActivations);
    CHECK_EQ(counted("dp4a"), passes * c.bytes / 16 / 144 * 16 * 64);
  }
}

TEST("cuda: measuring a GPU gives everything back, with little memory too") {
  for (const char* memory : {"memory=8g", "memory=40m"}) {
    use_simulator(kSettings);
    use_simulator(memory);
    const cuda::ReadSpeed speed = cuda::measure_read_speed(0);
    CHECK(speed.bytes >= 1 << 20);
    CHECK(speed.seconds > 0);
    check_nothing_leaks();
  }
  use_simulator("memory=30m");
  expect_error("30 MiB", ErrorCode::kOutOfMemory, "MiB free, but reading past its cache of 4 MiB takes 32",
               [] { cuda::measure_read_speed(0); });
  check_nothing_leaks();
}

TEST("cuda: measuring a GPU that runs out of memory or is lost is an error that leaves nothing behind") {
  use_simulator(kSettings);
  int allocations = 0;
  for (bool fails = true; fails; ++allocations) {
    use_simulator(("fail_alloc=" + std::to_string(allocations + 1)).c_str());
    try {
      cuda::measure_read_speed(0);
      fails = false;
    } catch (const Error& error) {
      CHECK_EQ(int(error.code()), int(ErrorCode::kOutOfMemory));
      CHECK(error.message().find("MiB of ") != error.message().npos ||
            error.message().find("cuMemAllocHost") != error.message().npos);
    }
    check_nothing_leaks();
  }
  CHECK(allocations > 3);  // weights, activations, outputs
  use_simulator("fail_alloc=0,fail_launch=1:719");
  expect_error("lost", ErrorCode::kDevice, "CUDA_ERROR_LAUNCH_FAILED", [] { cuda::measure_read_speed(0); });
  check_nothing_leaks();
}
