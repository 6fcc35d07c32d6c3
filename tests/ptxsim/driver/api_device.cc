// SPDX-License-Identifier: Apache-2.0
// Initialisation, devices, error names.
#include <cstring>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

int shared_opt_in(int cc) {
  return cc == 75 ? 64 << 10 : cc == 80 ? 163 << 10 : cc == 90 || cc == 100 ? 227 << 10 : 99 << 10;
}
int shared_per_sm(int cc) {
  return cc == 75 ? 64 << 10 : cc == 80 ? 164 << 10 : cc == 90 || cc == 100 ? 228 << 10 : 100 << 10;
}
int threads_per_sm(int cc) { return cc == 75 ? 1024 : cc == 80 || cc == 90 || cc == 100 ? 2048 : 1536; }
int blocks_per_sm(int cc) { return cc == 75 || cc == 86 ? 16 : cc == 89 || cc == 120 ? 24 : 32; }

int attribute(const Settings& s, int which, int* value) {
  switch (which) {
    case 1: *value = 1024; break;  // threads of a block, then its dimensions
    case 2:
    case 3: *value = 1024; break;
    case 4: *value = 64; break;
    case 5: *value = 0x7fffffff; break;  // dimensions of a grid
    case 6:
    case 7: *value = 65535; break;
    case 8: *value = 48 << 10; break;  // shared memory of a block
    case 9: *value = 64 << 10; break;  // constant memory
    case 10: *value = 32; break;       // warp size
    case 12:
    case 82: *value = 65536; break;      // registers of a block, of a multiprocessor
    case 13: *value = 1'500'000; break;  // kHz
    case 16: *value = s.sms; break;
    case 18: *value = 0; break;  // integrated
    case 31: *value = 1; break;  // concurrent kernels
    case 36: *value = s.memory_clock; return s.memory_clock < 0 ? kInvalidValue : kSuccess;
    case 37: *value = s.bus_width; break;
    case 38: *value = int(s.l2_cache); break;
    case 39: *value = threads_per_sm(s.cc); break;
    case 41: *value = 1; break;  // unified addressing
    case 75: *value = s.cc / 10; break;
    case 76: *value = s.cc % 10; break;
    case 81: *value = shared_per_sm(s.cc); break;
    case 88: *value = 0; break;  // pageable memory access
    case 95: *value = 1; break;  // cooperative launch
    case 97: *value = shared_opt_in(s.cc); break;
    case 106: *value = blocks_per_sm(s.cc); break;
    case 111: *value = s.cc >= 80 ? 1024 : 0; break;
    case 115: *value = 0; break;  // memory pools
    default: return kInvalidValue;
  }
  return kSuccess;
}

}  // namespace

PTXSIM_API cuInit(unsigned flags) {
  return enter("cuInit", kNothing, [&]() -> int {
    Driver& d = Driver::instance();
    if (flags != 0) return kInvalidValue;
    if (d.settings.devices == 0) return kNoDevice;
    d.initialized = true;
    return kSuccess;
  });
}

PTXSIM_API cuDriverGetVersion(int* version) {
  return enter("cuDriverGetVersion", kNothing, [&]() -> int {
    if (!version) return kInvalidValue;
    *version = Driver::instance().settings.driver_version;
    return kSuccess;
  });
}

PTXSIM_API cuDeviceGetCount(int* count) {
  return enter("cuDeviceGetCount", kInit, [&]() -> int {
    if (!count) return kInvalidValue;
    *count = Driver::instance().settings.devices;
    return kSuccess;
  });
}

// All devices are the same one: what is said to one is said to all.
int maestrale::ptxsim::check_device(int device) {
  return device >= 0 && device < Driver::instance().settings.devices ? kSuccess : kInvalidDevice;
}

PTXSIM_API cuDeviceGet(int* device, int ordinal) {
  return enter("cuDeviceGet", kInit, [&]() -> int {
    if (!device) return kInvalidValue;
    *device = ordinal;
    return check_device(ordinal);
  });
}

PTXSIM_API cuDeviceGetName(char* name, int length, int device) {
  return enter("cuDeviceGetName", kInit, [&]() -> int {
    if (!name || length <= 0) return kInvalidValue;
    std::snprintf(name, size_t(length), "ptxsim sm_%d", Driver::instance().settings.cc);
    return check_device(device);
  });
}

PTXSIM_API cuDeviceGetAttribute(int* value, int which, int device) {
  return enter("cuDeviceGetAttribute", kInit, [&]() -> int {
    if (!value) return kInvalidValue;
    const int bad = check_device(device);
    return bad ? bad : attribute(Driver::instance().settings, which, value);
  });
}

PTXSIM_API cuDeviceTotalMem_v2(size_t* bytes, int device) {
  return enter("cuDeviceTotalMem_v2", kInit, [&]() -> int {
    if (!bytes) return kInvalidValue;
    *bytes = Driver::instance().settings.memory;
    return check_device(device);
  });
}

PTXSIM_API cuDeviceGetUuid(void* uuid, int device) {
  return enter("cuDeviceGetUuid", kInit, [&]() -> int {
    if (!uuid) return kInvalidValue;
    std::memcpy(uuid, "ptxsim-device--", 15);
    static_cast<char*>(uuid)[15] = char('0' + device);
    return check_device(device);
  });
}

PTXSIM_API cuGetErrorName(int result, const char** text) {
  if (!text) return kInvalidValue;
  *text = result_name(result);
  return *text ? kSuccess : kInvalidValue;
}

PTXSIM_API cuGetErrorString(int result, const char** text) {
  if (!text) return kInvalidValue;
  *text = result_text(result);
  return *text ? kSuccess : kInvalidValue;
}
