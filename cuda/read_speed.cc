// SPDX-License-Identifier: Apache-2.0
#include "cuda/read_speed.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <string>

#include "base/error.h"
#include "base/integer.h"
#include "cuda/device_list.h"
#include "cuda/tile_layout.h"

namespace maestrale::cuda {
namespace {

constexpr int64_t kRows = 14336, kCols = 4096;  // of a matrix
constexpr int64_t kUnits = kCols / kUnitCols;
constexpr int64_t kMatrixStripes = kRows / kStripeRows;
constexpr int64_t kStripeBytes = kUnits * TileQ4_K::kBytes;

constexpr uint64_t kFirstBytes = uint64_t{1} << 20, kUsualBytes = uint64_t{256} << 20;
constexpr double kLongEnough = 0.01;  // seconds, beside which a launch and a wait are nothing

}  // namespace

WeightReader::WeightReader(const Device& device, const KernelModule& module, uint64_t bytes)
    : device_(device),
      matmul_row_(module, "matmul_row_q4_k"),
      stripes_(std::max<int64_t>(1, ceil_div(int64_t(bytes), kStripeBytes))),
      weights_(device, uint64_t(stripes_ * kStripeBytes), "weights to read"),
      records_(device, uint64_t(kUnits * kRecordBytes), "activations"),
      out_(device, uint64_t(kRows) * sizeof(float), "activations") {
  fill();
}

// Any bytes are weights and activations.
void WeightReader::fill() const {
  const PinnedBuffer values(device_, kFirstBytes);
  std::mt19937 random(1);
  std::generate_n(reinterpret_cast<uint32_t*>(values.data()), kFirstBytes / 4, [&] { return random(); });
  for (const DeviceBuffer* to : {&weights_, &records_})
    for (uint64_t at = 0; at < to->bytes(); at += kFirstBytes)
      MAESTRALE_CU(device_, cuMemcpyHtoDAsync_v2, to->address() + at, values.data(),
                   size_t(std::min(kFirstBytes, to->bytes() - at)), device_.stream());
  device_.synchronize();
}

void WeightReader::launch_pass() const {
  MatmulArgs args{};
  args.records = reinterpret_cast<const unsigned char*>(uintptr_t(records_.address()));
  args.rows = 1;
  args.units = int(kUnits);
  args.epilogue = Epilogue::kStore;
  for (int64_t first = 0; first < stripes_; first += kMatrixStripes) {
    const int64_t stripes = std::min(kMatrixStripes, stripes_ - first);
    const DevicePointer weight = weights_.address() + uint64_t(first * kStripeBytes);
    args.part[0] = {reinterpret_cast<const unsigned char*>(uintptr_t(weight)),
                    reinterpret_cast<float*>(uintptr_t(out_.address())), int(stripes * kStripeRows),
                    Role::kQuery};
    matmul_row_({stripes, 1, 256}, args);
  }
}

double WeightReader::seconds(int passes) const {
  constexpr int kTries = 5;
  double best = INFINITY;
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    for (int pass = 0; pass < passes; ++pass) launch_pass();
    device_.synchronize();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

ReadSpeed measure_read_speed(int ordinal) {
  const Device device(ordinal);
  const KernelModule module(device);
  const uint64_t cache = list_devices().devices[size_t(ordinal)].l2_cache;
  const uint64_t free_bytes = device.free_memory(), least = 4 * cache;
  const uint64_t most = std::min(std::max(kUsualBytes, 2 * least), free_bytes / 2);
  if (most < least)
    throw Error(ErrorCode::kOutOfMemory, "the GPU has " + std::to_string(free_bytes >> 20) +
                                             " MiB free, but reading past its cache of " +
                                             std::to_string(cache >> 20) + " MiB takes " +
                                             std::to_string(2 * least >> 20));
  // A GPU reads the least bytes in microseconds, so it gets to the most of them; a simulated one does not.
  for (uint64_t bytes = kFirstBytes;; bytes *= 4) {
    const WeightReader reader(device, module, std::min(bytes, most));
    const double seconds = reader.seconds(1);
    if (seconds >= kLongEnough) return {reader.bytes(), seconds};
    if (bytes < most) continue;
    const int passes = int(std::ceil(kLongEnough / seconds));
    return {reader.bytes(), reader.seconds(passes) / passes};
  }
}

}  // namespace maestrale::cuda
