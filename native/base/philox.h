// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror, Shaw: "Parallel Random
// Numbers: As Easy as 1, 2, 3", SC'11). The number for (seed, position, stream) is a pure function of
// the three, so a request draws the same numbers whatever runs beside it, and wherever.
#pragma once

#include <cstdint>

#include "base/portable_math.h"

namespace maestrale {

struct PhiloxBlock {
  uint32_t word[4];
  bool operator==(const PhiloxBlock&) const = default;
};
struct PhiloxKey {
  uint32_t word[2];
};

MAESTRALE_HOST_DEVICE inline PhiloxBlock philox4x32_10(PhiloxBlock counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    const uint32_t* c = counter.word;
    const uint64_t product0 = uint64_t{0xD2511F53} * c[0], product1 = uint64_t{0xCD9E8D57} * c[2];
    counter = {uint32_t(product1 >> 32) ^ c[1] ^ key.word[0], uint32_t(product1),
               uint32_t(product0 >> 32) ^ c[3] ^ key.word[1], uint32_t(product0)};
    key.word[0] += 0x9E3779B9;
    key.word[1] += 0xBB67AE85;
  }
  return counter;
}

// Uniform in [0, 1), a multiple of 2^-53.
MAESTRALE_HOST_DEVICE inline double philox_uniform(uint64_t seed, uint64_t position, uint64_t stream) {
  const PhiloxBlock block =
      philox4x32_10({uint32_t(position), uint32_t(position >> 32), uint32_t(stream), uint32_t(stream >> 32)},
                    {uint32_t(seed), uint32_t(seed >> 32)});
  return product(double((uint64_t(block.word[1]) << 32 | block.word[0]) >> 11), 0x1p-53);
}

}  // namespace maestrale
