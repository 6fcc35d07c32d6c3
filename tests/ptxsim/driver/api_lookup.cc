// SPDX-License-Identifier: Apache-2.0
// Looking up entry points, and the simulator's own: settings, report, trace. The simulator's functions
// begin with ptxsim_; no other driver has them.
#include <dlfcn.h>

#include <cstring>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

// The function exactly named so, or its newest version that is known here.
static int find(const char* symbol, void** function) {
  Dl_info self;
  *function = nullptr;
  if (!dladdr(reinterpret_cast<void*>(&find), &self)) return kUnknown;
  void* library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  if (!library) return kUnknown;
  for (const char* suffix : {"_v3", "_v2", ""})
    if (!*function) *function = dlsym(library, (std::string(symbol) + suffix).c_str());
  dlclose(library);
  return *function ? kSuccess : kNotFound;
}

PTXSIM_API cuGetProcAddress(const char* symbol, void** function, int version, uint64_t) {
  return enter("cuGetProcAddress", kNothing, [&]() -> int {
    if (!symbol || !function) return kInvalidValue;
    return version > Driver::instance().settings.driver_version ? int(kNotFound) : find(symbol, function);
  });
}

PTXSIM_API cuGetProcAddress_v2(const char* symbol, void** function, int version, uint64_t, int* status) {
  return enter("cuGetProcAddress_v2", kNothing, [&]() -> int {
    if (!symbol || !function) return kInvalidValue;
    const bool too_new = version > Driver::instance().settings.driver_version;
    const int result = too_new ? int(kNotFound) : find(symbol, function);
    if (status) *status = result == kSuccess ? 0 : too_new ? 2 : 1;
    return result;
  });
}

// Changes settings; 0, or 1 when the text is not understood. See Settings.
PTXSIM_API ptxsim_configure(const char* text) {
  Driver& d = Driver::instance();
  const std::lock_guard<std::recursive_mutex> guard(d.lock);
  try {
    d.configure(text);
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

// JSON: counters per kernel, calls by name, leaks, the last fault, printf's output. Valid until the
// thread's next call.
extern "C" __attribute__((visibility("default"))) const char* ptxsim_report() {
  Driver& d = Driver::instance();
  const std::lock_guard<std::recursive_mutex> guard(d.lock);
  thread_local std::string text;
  text = d.report();
  return text.c_str();
}

// The names of the calls since the last reset, one a line.
extern "C" __attribute__((visibility("default"))) const char* ptxsim_trace() {
  Driver& d = Driver::instance();
  const std::lock_guard<std::recursive_mutex> guard(d.lock);
  thread_local std::string text;
  text.clear();
  for (const std::string& name : d.trace) text += name + "\n";
  return text.c_str();
}

// How many calls this thread has made.
PTXSIM_API ptxsim_calls_of_thread() { return calls_of_thread(); }

// Forgets counters, calls, trace, output and the last fault. The sticky error stays.
PTXSIM_API ptxsim_reset() {
  Driver& d = Driver::instance();
  const std::lock_guard<std::recursive_mutex> guard(d.lock);
  d.counters.clear();
  d.calls.clear();
  d.bytes_to_host = 0;
  d.trace.clear();
  d.output.clear();
  d.last_fault.clear();
  return 0;
}
