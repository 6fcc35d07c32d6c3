// SPDX-License-Identifier: Apache-2.0
// The generic address space: shared, local and parameter memory are windows at addresses no global
// memory has, so that an address tells its space.
#pragma once

#include <cstdint>

#include "ptx/ir.h"

namespace maestrale::ptxsim {

inline constexpr uint64_t kSharedWindow = uint64_t{0x7e} << 40;
inline constexpr uint64_t kLocalWindow = uint64_t{0x7d} << 40;
inline constexpr uint64_t kParamWindow = uint64_t{0x7c} << 40;
inline constexpr uint64_t kWindowBytes = uint64_t{1} << 40;
// Device memory lies where no host pointer can: the host cannot dereference such an address.
inline constexpr uint64_t kDeviceBase = uint64_t{0x7000} << 40;

inline Space space_of(uint64_t address) {
  switch (address >> 40) {
    case 0x7e: return Space::kShared;
    case 0x7d: return Space::kLocal;
    case 0x7c: return Space::kParam;
    default: return Space::kGlobal;
  }
}

}  // namespace maestrale::ptxsim
