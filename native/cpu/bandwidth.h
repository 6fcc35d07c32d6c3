// SPDX-License-Identifier: Apache-2.0
// How fast this machine reads memory, which is what bounds decoding: every token reads all weights once.
#pragma once

#include <cstdint>

namespace maestrale {

// Bytes a second that `threads` threads read together from a buffer of `bytes`, which should be several times
// the last-level cache; the best of twenty passes. Throws Error{kOutOfMemory}.
double read_bandwidth(int threads, uint64_t bytes);

}  // namespace maestrale
