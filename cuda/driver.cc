// SPDX-License-Identifier: Apache-2.0
#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "base/error.h"

namespace maestrale::cuda {
namespace {

constexpr int kOldestDriver = 11000;                  // reads PTX 7.0
constexpr int kCudaOutOfMemory = 2, kNoDevice = 100;  // CUresult

// The results after which a context does nothing any more.
bool loses_context(int result) {
  constexpr int kIllegalAddress = 700, kLaunchTimeout = 702, kAssert = 710, kFirstTrap = 714,
                kLaunchFailed = 719, kEccError = 214, kUnknown = 999;
  return result == kIllegalAddress || result == kLaunchTimeout || result == kAssert ||
         (result >= kFirstTrap && result <= kLaunchFailed) || result == kEccError || result == kUnknown;
}

[[noreturn]] void unavailable(const std::string& reason) {
  throw Error(ErrorCode::kDevice, "CUDA is not available: " + reason);
}

void* open_library(const char* path) {
  if (path != nullptr) {
    if (*path == 0) unavailable("MAESTRALE_CUDA_DRIVER is empty, which switches it off");
    if (void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL)) return library;
    unavailable(std::string("MAESTRALE_CUDA_DRIVER cannot be opened: ") + dlerror());
  }
  for (const char* name : {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"})
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  unavailable("the NVIDIA driver (libcuda.so.1) is not installed");
}

template <class F>
void resolve_if_there(void* library, const char* name, F*& function) {
  function = reinterpret_cast<F*>(dlsym(library, name));
}

template <class F>
void resolve(void* library, const char* name, F*& function) {
  resolve_if_there(library, name, function);
  if (function == nullptr) unavailable(std::string("the driver lacks ") + name);
}

std::string error_name(const Driver& d, int result) {
  const char* name = nullptr;
  if (d.cuGetErrorName(result, &name) == 0 && name != nullptr) return name;
  return "error " + std::to_string(result);
}

Driver load(const char* path) {
  void* library = open_library(path);
  Driver d{};
#define MAESTRALE_RESOLVE(name) resolve(library, #name, d.name)
  MAESTRALE_RESOLVE(cuInit);
  MAESTRALE_RESOLVE(cuDriverGetVersion);
  MAESTRALE_RESOLVE(cuDeviceGetCount);
  MAESTRALE_RESOLVE(cuDeviceGet);
  MAESTRALE_RESOLVE(cuDeviceGetName);
  MAESTRALE_RESOLVE(cuDeviceTotalMem_v2);
  MAESTRALE_RESOLVE(cuDeviceGetAttribute);
  MAESTRALE_RESOLVE(cuCtxCreate_v2);
  MAESTRALE_RESOLVE(cuCtxDestroy_v2);
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
  MAESTRALE_RESOLVE(cuStreamBeginCapture_v2);
  MAESTRALE_RESOLVE(cuStreamEndCapture);
  resolve_if_there(library, "cuGraphInstantiateWithFlags", d.cuGraphInstantiateWithFlags);
  if (d.cuGraphInstantiateWithFlags == nullptr) MAESTRALE_RESOLVE(cuGraphInstantiate_v2);
  MAESTRALE_RESOLVE(cuGraphLaunch);
  MAESTRALE_RESOLVE(cuGraphDestroy);
  MAESTRALE_RESOLVE(cuGraphExecDestroy);
  MAESTRALE_RESOLVE(cuGetErrorName);
#undef MAESTRALE_RESOLVE
  const int started = d.cuInit(0);
  if (started == kNoDevice) unavailable("the driver finds no GPU");
  if (started != 0) unavailable("cuInit failed with " + error_name(d, started));
  int version = 0;
  if (const int result = d.cuDriverGetVersion(&version))
    unavailable("cuDriverGetVersion failed with " + error_name(d, result));
  if (version < kOldestDriver)
    unavailable("the driver supports CUDA " + std::to_string(version / 1000) + "." +
                std::to_string(version % 1000 / 10) + ", but 11.0 is needed");
  return d;
}

}  // namespace

const Driver& open_driver() {
  static std::mutex mutex;
  static auto* opened = new std::map<std::string, Driver>;  // devices may outlive what is destroyed at exit
  const char* path = std::getenv("MAESTRALE_CUDA_DRIVER");
  const std::string name = path == nullptr ? "" : path;
  const std::lock_guard lock(mutex);
  const auto found = opened->find(name);
  return found != opened->end() ? found->second : opened->emplace(name, load(path)).first->second;
}

void check(const Driver& driver, int result, const char* call) {
  if (result == 0) return;
  std::string message = std::string(call) + " failed with " + error_name(driver, result);
  if (loses_context(result)) message += "; this model is lost with its context on the GPU, load it again";
  throw Error(result == kCudaOutOfMemory ? ErrorCode::kOutOfMemory : ErrorCode::kDevice, message);
}

}  // namespace maestrale::cuda
