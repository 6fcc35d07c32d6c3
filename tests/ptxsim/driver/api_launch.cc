// SPDX-License-Identifier: Apache-2.0
// Launches, function attributes, occupancy. Parameters are copied when the launch is made; the kernel
// runs when its turn in the stream comes.
#include <algorithm>
#include <cstring>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

extern "C" int cuDeviceGetAttribute(int* value, int which, int device);

namespace {

constexpr int kStaticLimit = 48 << 10;

Driver& driver() { return Driver::instance(); }

FunctionState* function_of(void* handle) {
  FunctionState* f = static_cast<FunctionState*>(handle);
  return driver().functions.count(f) ? f : nullptr;
}

int device_attribute(int which) {
  int value = 0;
  cuDeviceGetAttribute(&value, which, 0);
  return value;
}

int result_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kOutOfBounds: return kIllegalAddress;
    case FaultKind::kMisaligned: return kMisalignedAddress;
    case FaultKind::kAssert: return kAssert;
    case FaultKind::kTrap: return kIllegalInstruction;
    case FaultKind::kDeadlock: return kLaunchTimeout;
    default: return kLaunchFailed;
  }
}

void execute(const Program& program, const LaunchConfig& config) {
  Driver& d = driver();
  if (d.settings.fail_launch > 0 && --d.settings.fail_launch == 0)
    return d.fail(d.settings.fail_launch_with, "injected failure of " + program.name);
  Launch launch{&program, d.memory.get(),          config, d.settings.options, {}, {}, {}, {}, {},
                {},       uint32_t(d.settings.sms)};
  launch.options.seed = d.random();
  try {
    run(launch);
  } catch (const Fault& fault) {
    d.memory->forget_sectors();
    d.fail(result_of(fault.kind()), fault.what());
  }
  d.counters[program.name].add(launch.counters);
  d.output += launch.output;
}

// From kernelParams, or from the packed buffer of `extra`, whose size must be that of the signature.
int collect_params(const Program& program, void** params, void** extra, std::vector<std::byte>& out) {
  out.resize(size_t(program.param_bytes));
  if (extra) {
    const void* buffer = nullptr;
    const size_t* size = nullptr;
    if (params) return kInvalidValue;
    for (void** e = extra; *e != nullptr; e += 2) {
      if (*e == reinterpret_cast<void*>(1))
        buffer = e[1];
      else if (*e == reinterpret_cast<void*>(2))
        size = static_cast<const size_t*>(e[1]);
      else
        return kInvalidValue;
    }
    if (!buffer || !size || *size != out.size()) return kInvalidValue;
    std::memcpy(out.data(), buffer, out.size());
    return kSuccess;
  }
  if (program.params.empty()) return kSuccess;
  if (!params) return kInvalidValue;
  for (size_t i = 0; i < program.params.size(); ++i) {
    if (!params[i]) return kInvalidValue;
    std::memcpy(out.data() + program.params[i].offset, params[i], size_t(program.params[i].bytes));
  }
  return kSuccess;
}

int check_shape(const FunctionState& f, const Dim3& grid, const Dim3& block, unsigned shared) {
  const Program& p = f.program;
  if (grid.count() == 0 || block.count() == 0) return kInvalidValue;
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) return kInvalidValue;
  if (block.x > 1024 || block.y > 1024 || block.z > 64 || block.count() > 1024) return kInvalidValue;
  if (p.required[0] && (block.x != uint32_t(p.required[0]) || block.y != uint32_t(p.required[1]) ||
                        block.z != uint32_t(p.required[2])))
    return kInvalidValue;
  if (block.count() > uint64_t(p.max_threads)) return kLaunchOutOfResources;
  if (int64_t(shared) > f.max_dynamic_shared) return kInvalidValue;
  return kSuccess;
}

int max_blocks(const FunctionState& f, int block, size_t dynamic) {
  const int64_t shared = f.program.shared_bytes + int64_t(dynamic) + device_attribute(111);
  const int warps = (block + 31) / 32;
  int n = std::min(device_attribute(106), device_attribute(39) / (warps * 32));
  return std::min<int>(n, int(device_attribute(81) / std::max<int64_t>(shared, 1)));
}

int launch(void* function, Dim3 grid, Dim3 block, unsigned shared, void* stream, void** params, void** extra,
           bool cooperative) {
  Driver& d = driver();
  FunctionState* f = function_of(function);
  Stream* s = d.stream(stream);
  if (!f || !s || f->module->context != s->context) return kInvalidHandle;
  if (const int bad = check_shape(*f, grid, block, shared)) return bad;
  if (cooperative &&
      grid.count() > uint64_t(max_blocks(*f, int(block.count()), shared)) * uint64_t(d.settings.sms))
    return kCooperativeLaunchTooLarge;
  LaunchConfig config{grid, block, shared, {}, cooperative};
  if (const int bad = collect_params(f->program, params, extra, config.params)) return bad;
  return d.enqueue(*s, [f, config = std::move(config)] {
    if (!driver().functions.count(f))
      return driver().fail(kInvalidHandle, "a queued launch of a function whose module is unloaded");
    execute(f->program, config);
  });
}

}  // namespace

PTXSIM_API cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void* stream, void** params, void** extra) {
  return enter("cuLaunchKernel", kContext, [&] {
    return launch(f, {gx, gy, gz}, {bx, by, bz}, shared, stream, params, extra, false);
  });
}

PTXSIM_API cuLaunchCooperativeKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                     unsigned bz, unsigned shared, void* stream, void** params) {
  return enter("cuLaunchCooperativeKernel", kContext, [&] {
    return launch(f, {gx, gy, gz}, {bx, by, bz}, shared, stream, params, nullptr, true);
  });
}

PTXSIM_API cuLaunchHostFunc(void* stream, void (*f)(void*), void* data) {
  return enter("cuLaunchHostFunc", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (!f) return kInvalidValue;
    return driver().enqueue(*s, [f, data] { f(data); });
  });
}

PTXSIM_API cuFuncGetAttribute(int* value, int which, void* function) {
  return enter("cuFuncGetAttribute", kContext, [&]() -> int {
    FunctionState* f = function_of(function);
    if (!f) return kInvalidHandle;
    if (!value) return kInvalidValue;
    switch (which) {
      case 0: *value = f->program.max_threads; return kSuccess;
      case 1: *value = int(f->program.shared_bytes); return kSuccess;
      case 2: *value = 0; return kSuccess;
      case 3: *value = int(f->program.frame_bytes); return kSuccess;
      case 4: *value = 32; return kSuccess;  // registers are ptxas' business
      case 5: *value = f->module->source.target; return kSuccess;
      case 6: *value = driver().settings.cc; return kSuccess;
      case 7: *value = 0; return kSuccess;
      case 8: *value = f->max_dynamic_shared; return kSuccess;
      case 9: *value = -1; return kSuccess;
      default: return kInvalidValue;
    }
  });
}

PTXSIM_API cuFuncSetAttribute(void* function, int which, int value) {
  return enter("cuFuncSetAttribute", kContext, [&]() -> int {
    FunctionState* f = function_of(function);
    if (!f) return kInvalidHandle;
    if (which == 9) return value >= -1 && value <= 100 ? kSuccess : kInvalidValue;
    if (which != 8 || value < 0 || value + f->program.shared_bytes > device_attribute(97))
      return kInvalidValue;
    f->max_dynamic_shared = std::max(value, kStaticLimit - int(f->program.shared_bytes));
    return kSuccess;
  });
}

PTXSIM_API cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* bytes) {
  return enter("cuFuncGetParamInfo", kContext, [&]() -> int {
    FunctionState* f = function_of(function);
    if (!f) return kInvalidHandle;
    if (!offset || index >= f->program.params.size()) return kInvalidValue;
    *offset = size_t(f->program.params[index].offset);
    if (bytes) *bytes = size_t(f->program.params[index].bytes);
    return kSuccess;
  });
}

PTXSIM_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int block,
                                                       size_t dynamic) {
  return enter("cuOccupancyMaxActiveBlocksPerMultiprocessor", kContext, [&]() -> int {
    FunctionState* f = function_of(function);
    if (!f) return kInvalidHandle;
    if (!blocks || block <= 0 || block > 1024) return kInvalidValue;
    *blocks = max_blocks(*f, block, dynamic);
    return kSuccess;
  });
}
