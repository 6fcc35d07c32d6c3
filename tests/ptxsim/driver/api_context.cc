// SPDX-License-Identifier: Apache-2.0
// Contexts: the primary one, which is shared and counted, and created ones.
#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

Driver& driver() { return Driver::instance(); }

bool is_context(void* handle) { return driver().contexts.count(static_cast<Context*>(handle)) > 0; }

std::vector<Context*>& context_stack() {
  thread_local std::vector<Context*> stack;
  return stack;
}

void push(void* context) {
  context_stack().push_back(current_context());
  current_context() = static_cast<Context*>(context);
}

}  // namespace

PTXSIM_API cuDevicePrimaryCtxRetain(void** context, int device) {
  return enter("cuDevicePrimaryCtxRetain", kInit, [&]() -> int {
    Driver& d = driver();
    if (!context) return kInvalidValue;
    if (const int bad = check_device(device)) return bad;
    if (d.primary_references++ == 0) d.primary = d.open_context();
    *context = d.primary.get();
    return kSuccess;
  });
}

PTXSIM_API cuDevicePrimaryCtxRelease_v2(int device) {
  return enter("cuDevicePrimaryCtxRelease_v2", kInit, [&]() -> int {
    Driver& d = driver();
    if (const int bad = check_device(device)) return bad;
    if (d.primary_references == 0) return kInvalidContext;
    if (--d.primary_references == 0) d.close_context(*d.primary);
    return kSuccess;
  });
}

PTXSIM_API cuCtxCreate_v2(void** context, unsigned flags, int device) {
  return enter("cuCtxCreate_v2", kInit, [&]() -> int {
    if (!context || flags > 0x1f) return kInvalidValue;
    if (const int bad = check_device(device)) return bad;
    *context = driver().open_context().release();
    push(*context);
    return kSuccess;
  });
}

PTXSIM_API cuCtxDestroy_v2(void* context) {
  return enter("cuCtxDestroy_v2", kInit, [&]() -> int {
    if (!is_context(context) || context == driver().primary.get()) return kInvalidContext;
    const std::unique_ptr<Context> ended(static_cast<Context*>(context));
    driver().close_context(*ended);
    if (current_context() == context) current_context() = nullptr;
    return kSuccess;
  });
}

PTXSIM_API cuCtxSetCurrent(void* context) {
  return enter("cuCtxSetCurrent", kInit, [&]() -> int {
    if (context && !is_context(context)) return kInvalidContext;
    current_context() = static_cast<Context*>(context);
    return kSuccess;
  });
}

PTXSIM_API cuCtxGetCurrent(void** context) {
  return enter("cuCtxGetCurrent", kInit, [&]() -> int {
    if (!context) return kInvalidValue;
    *context = current_context();
    return kSuccess;
  });
}

PTXSIM_API cuCtxPushCurrent_v2(void* context) {
  return enter("cuCtxPushCurrent_v2", kInit, [&]() -> int {
    if (!is_context(context)) return kInvalidContext;
    push(context);
    return kSuccess;
  });
}

PTXSIM_API cuCtxPopCurrent_v2(void** context) {
  return enter("cuCtxPopCurrent_v2", kInit, [&]() -> int {
    if (!current_context()) return kInvalidContext;
    if (context) *context = current_context();
    current_context() = context_stack().empty() ? nullptr : context_stack().back();
    if (!context_stack().empty()) context_stack().pop_back();
    return kSuccess;
  });
}

PTXSIM_API cuCtxGetDevice(int* device) {
  return enter("cuCtxGetDevice", kContext, [&]() -> int {
    if (!device) return kInvalidValue;
    *device = 0;
    return kSuccess;
  });
}

PTXSIM_API cuCtxSynchronize() {
  return enter("cuCtxSynchronize", kContext, [&]() -> int {
    Driver& d = driver();
    if (const int bad = d.refuse_in_capture()) return bad;
    d.run_until([&] { return d.idle(); });
    return kSuccess;
  });
}
