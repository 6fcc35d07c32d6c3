// SPDX-License-Identifier: Apache-2.0
// The NVIDIA driver, opened by name when CUDA is first asked for: nothing is linked. The table holds the
// entry points this back end uses, each under the exact name that drivers since CUDA 11.0 export.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maestrale::cuda {

using DevicePointer = uint64_t;
using Handle = void*;  // context, module, function, stream

struct Driver {
  int (*cuInit)(unsigned flags);
  int (*cuDriverGetVersion)(int* version);
  int (*cuDeviceGetCount)(int* count);
  int (*cuDeviceGet)(int* device, int ordinal);
  int (*cuDeviceGetName)(char* name, int length, int device);
  int (*cuDeviceTotalMem_v2)(size_t* bytes, int device);
  int (*cuDeviceGetAttribute)(int* value, int attribute, int device);
  int (*cuCtxCreate_v2)(Handle* context, unsigned flags, int device);
  int (*cuCtxDestroy_v2)(Handle context);
  int (*cuCtxSetCurrent)(Handle context);
  int (*cuMemGetInfo_v2)(size_t* free_bytes, size_t* total);
  int (*cuMemAlloc_v2)(DevicePointer* address, size_t bytes);
  int (*cuMemFree_v2)(DevicePointer address);
  int (*cuMemAllocHost_v2)(void** address, size_t bytes);
  int (*cuMemFreeHost)(void* address);
  int (*cuMemcpyHtoDAsync_v2)(DevicePointer to, const void* from, size_t bytes, Handle stream);
  int (*cuMemcpyDtoHAsync_v2)(void* to, DevicePointer from, size_t bytes, Handle stream);
  int (*cuModuleLoadDataEx)(Handle* module, const void* image, unsigned n, int* options, void** values);
  int (*cuModuleUnload)(Handle module);
  int (*cuModuleGetFunction)(Handle* function, Handle module, const char* name);
  int (*cuLaunchKernel)(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, Handle stream,
                        void** arguments, void** extra);
  int (*cuStreamCreate)(Handle* stream, unsigned flags);
  int (*cuStreamDestroy_v2)(Handle stream);
  int (*cuStreamSynchronize)(Handle stream);
  int (*cuStreamBeginCapture_v2)(Handle stream, int mode);
  int (*cuStreamEndCapture)(Handle stream, Handle* graph);
  // The first since CUDA 11.4, the second before: the one that is not there is null.
  int (*cuGraphInstantiateWithFlags)(Handle* executable, Handle graph, unsigned long long flags);
  int (*cuGraphInstantiate_v2)(Handle* executable, Handle graph, Handle* node, char* log, size_t log_bytes);
  int (*cuGraphLaunch)(Handle executable, Handle stream);
  int (*cuGraphDestroy)(Handle graph);
  int (*cuGraphExecDestroy)(Handle executable);
  int (*cuGetErrorName)(int result, const char** name);
};

// The driver named by $MAESTRALE_CUDA_DRIVER, else the system's; once opened it stays loaded. An empty name
// switches CUDA off. Throws Error{kDevice} when there is none, when it is older than CUDA 11.0 or finds no
// device; what fails is tried again by the next caller. Thread-safe.
const Driver& open_driver();

// Throws Error for a CUresult other than 0: kOutOfMemory for memory, else kDevice, with the call and the
// driver's name of the error.
void check(const Driver& driver, int result, const char* call);

}  // namespace maestrale::cuda

// Calls an entry point of the driver of `owner`, anything with a driver(), and checks its result.
#define MAESTRALE_CU(owner, name, ...) \
  ::maestrale::cuda::check((owner).driver(), (owner).driver().name(__VA_ARGS__), #name)
