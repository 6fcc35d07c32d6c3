// SPDX-License-Identifier: Apache-2.0
// From the addresses of a warp instruction to host pointers, with all checks and counters on the way.
#pragma once

#include "exec/cta.h"

namespace maestrale::ptxsim {

struct Lanes64 {
  uint64_t v[kWarpSize];
};

struct Resolved {
  std::byte* at[kWarpSize];  // valid for the lanes of the mask
  bool contiguous = false;   // lane i lies `width` bytes behind lane i-1, all lanes active
};

// Addresses of an Access: base register plus offset.
Lanes64 addresses(const Warp& w, uint32_t base, bool base_is_32_bits, int64_t offset);

// `width` bytes at each address of `mask` in `space`. Throws Fault.
Resolved resolve(Warp& w, const Op& op, uint32_t mask, Space space, const Lanes64& address, uint32_t width,
                 AccessKind kind);

// The lanes of `mask` whose address lies in each space, one call f(space, lanes, addresses) per space
// that occurs; the addresses are inside that space then. Constant memory is part of global memory.
template <class F>
void by_space(Space space, uint32_t mask, const Lanes64& address, F f) {
  if (space == Space::kConst) space = Space::kGlobal;
  if (space != Space::kGeneric) return f(space, mask, address);
  for (uint32_t rest = mask; rest;) {
    const Space here = space_of(address.v[__builtin_ctz(rest)]);
    uint32_t lanes_here = 0;
    Lanes64 inside = address;
    each_lane(rest, [&](int i) {
      if (space_of(address.v[i]) != here) return;
      lanes_here |= 1u << i;
      if (here != Space::kGlobal) inside.v[i] &= kWindowBytes - 1;
    });
    f(here, lanes_here, inside);
    rest &= ~lanes_here;
  }
}

}  // namespace maestrale::ptxsim
