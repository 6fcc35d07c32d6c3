// SPDX-License-Identifier: Apache-2.0
#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr int kOldestDriver = 11000;  // reads PTX 7.0
constexpr int kCudaOutOfMemory = 2;

[[noreturn]] void unavailable(const std::string& reason) {
  throw Error(ErrorCode::kDevice, "CUDA is not available: " + reason);
}

void* open_library() {
  if (const char* path = std::getenv("MAESTRALE_CUDA_DRIVER")) {
    if (void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) return library;
    unavailable(std::string("MAESTRALE_CUDA_DRIVER cannot be opened: ") + dlerror());
  }
  for (const char* name : {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"})
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  unavailable("the NVIDIA driver (libcuda.so.1) is not installed");
}

template <class F>
void resolve(void* library, const char* name, F*& function) {
  function = reinterpret_cast<F*>(dlsym(library, name));
  if (function == nullptr) unavailable(std::string("the driver lacks ") + name);
}

std::string error_name(const Driver& d, int result) {
  const char* name = nullptr;
  if (d.cuGetErrorName(result, &name) == 0 && name != nullptr) return name;
  return "error " + std::to_string(result);
}

Driver load() {
  void* library = open_library();
  Driver d{};
#define MAESTRALE_RESOLVE(name) resolve(library, #name, d.name)
  MAESTRALE_RESOLVE(cuInit);
  MAESTRALE_RESOLVE(cuDriverGetVersion);
  MAESTRALE_RESOLVE(cuDeviceGetCount);
  MAESTRALE_RESOLVE(cuDeviceGet);
  MAESTRALE_RESOLVE(cuDeviceGetAttribute);
  MAESTRALE_RESOLVE(cuDevicePrimaryCtxRetain);
  MAESTRALE_RESOLVE(cuDevicePrimaryCtxRelease_v2);
  MAESTRALE_RESOLVE(cuCtxSetCurrent);
  MAESTRALE_RESOLVE(cuMemGetInfo_v2);
  MAESTRALE_RESOLVE(cuMemAlloc_v2);
  MAESTRALE_RESOLVE(cuMemFree_v2);
  MAESTRALE_RESOLVE(cuMemAllocHost_v2);
  MAESTRALE_RESOLVE(cuMemFreeHost);
  MAESTRALE_RESOLVE(cuMemcpyHtoDAsync_v2);
  MAESTRALE_RESOLVE(cuMemcpyDtoHAsync_v2);
  MAESTRALE_RESOLVE(cuModuleLoadDataEx);
  MAESTRALE_RESOLVE(cuModuleUnload);
  MAESTRALE_RESOLVE(cuModuleGetFunction);
  MAESTRALE_RESOLVE(cuLaunchKernel);
  MAESTRALE_RESOLVE(cuStreamCreate);
  MAESTRALE_RESOLVE(cuStreamDestroy_v2);
  MAESTRALE_RESOLVE(cuStreamSynchronize);
  MAESTRALE_RESOLVE(cuGetErrorName);
#undef MAESTRALE_RESOLVE
  if (const int result = d.cuInit(0)) unavailable("cuInit failed with " + error_name(d, result));
  int version = 0;
  if (const int result = d.cuDriverGetVersion(&version))
    unavailable("cuDriverGetVersion failed with " + error_name(d, result));
  if (version < kOldestDriver)
    unavailable("the driver supports CUDA " + std::to_string(version / 1000) + "." +
                std::to_string(version % 1000 / 10) + ", but 11.0 is needed");
  return d;
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = load();  // a failure is tried again by the next caller
  return loaded;
}

void check(int result, const char* call) {
  if (result == 0) return;
  throw Error(result == kCudaOutOfMemory ? ErrorCode::kOutOfMemory : ErrorCode::kDevice,
              std::string(call) + " failed with " + error_name(driver(), result));
}

}  // namespace maestrale::cuda
