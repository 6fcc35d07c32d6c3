// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_list.h"

#include "cuda/driver.h"

namespace maestrale::cuda {
namespace {

// CUdevice_attribute
constexpr int kMemoryClock = 36, kBusWidth = 37, kL2Cache = 38;  // kHz, bits, bytes
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;

// 0 where the driver does not tell: newer ones have given up the clock.
int attribute_if_told(int device, int attribute) {
  int value = 0;
  return open_driver().cuDeviceGetAttribute(&value, attribute, device) == 0 ? value : 0;
}

}  // namespace

int count_devices() {
  const Driver& driver = open_driver();
  int count = 0;
  check(driver, driver.cuDeviceGetCount(&count), "cuDeviceGetCount");
  return count;
}

int compute_capability(int device) {
  const Driver& driver = open_driver();
  int major = 0, minor = 0;
  check(driver, driver.cuDeviceGetAttribute(&major, kCapabilityMajor, device), "cuDeviceGetAttribute");
  check(driver, driver.cuDeviceGetAttribute(&minor, kCapabilityMinor, device), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

DeviceList list_devices() {
  const Driver& driver = open_driver();
  DeviceList list;
  check(driver, driver.cuDriverGetVersion(&list.driver_version), "cuDriverGetVersion");
  const int count = count_devices();
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    int device = 0;
    char name[128] = "";
    size_t memory = 0;
    check(driver, driver.cuDeviceGet(&device, ordinal), "cuDeviceGet");
    check(driver, driver.cuDeviceGetName(name, int(sizeof name), device), "cuDeviceGetName");
    check(driver, driver.cuDeviceTotalMem_v2(&memory, device), "cuDeviceTotalMem");
    list.devices.push_back(
        {name, compute_capability(device), memory,
         memory_bandwidth(attribute_if_told(device, kMemoryClock), attribute_if_told(device, kBusWidth)),
         uint64_t(attribute_if_told(device, kL2Cache))});
  }
  return list;
}

}  // namespace maestrale::cuda
