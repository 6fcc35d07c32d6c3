// SPDX-License-Identifier: Apache-2.0
#include "engine/machine.h"

#include <algorithm>

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/bandwidth.h"
#include "cpu/cpu_backend.h"
#include "engine/memory_budget.h"
#ifdef MAESTRALE_CUDA
#include "cuda/device_list.h"
#include "cuda/read_speed.h"
#endif

namespace maestrale {
namespace {

constexpr uint64_t kProbeBytes = uint64_t{512} << 20;  // beyond any last-level cache but a few servers'

void examine_gpus(Machine& machine) {
#ifdef MAESTRALE_CUDA
  const cuda::DeviceList list = cuda::list_devices();
  machine.cuda_version = list.driver_version;
  for (const cuda::DeviceFacts& device : list.devices)
    machine.gpus.push_back({device.name, device.capability, device.memory,
                            device.capability >= cuda::kOldestCapability, device.memory_bandwidth});
#else
  (void)machine;
  count_cuda_devices();  // says why there are none
#endif
}

}  // namespace

int count_cuda_devices() {
#ifdef MAESTRALE_CUDA
  return cuda::count_devices();
#else
  throw Error(ErrorCode::kDevice, "this build has no CUDA back end");
#endif
}

Machine examine_machine() {
  Machine machine;
  machine.threads = available_cpus();
  machine.available_memory = available_memory();
  machine.isas = available_isas();
  machine.named_isas = named_isas();
  machine.read_bandwidth =
      read_bandwidth(machine.threads, std::min(kProbeBytes, machine.available_memory / 4));
  try {
    examine_gpus(machine);
  } catch (const Error& error) {
    machine.cuda_problem = error.message();
  }
  return machine;
}

GpuReadSpeed measure_gpu(int ordinal) {
#ifdef MAESTRALE_CUDA
  const cuda::ReadSpeed speed = cuda::measure_read_speed(ordinal);
  return {speed.bytes, speed.seconds};
#else
  (void)ordinal;
  count_cuda_devices();  // says why there are none
  return {};
#endif
}

}  // namespace maestrale
