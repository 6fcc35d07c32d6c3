// SPDX-License-Identifier: Apache-2.0
// Philox against the known answers that its authors publish (Random123, kat_vectors).
#include <set>

#include "base/philox.h"
#include "check.h"

using namespace maestrale;

TEST("rng: known answers of philox4x32-10") {
  CHECK((philox4x32_10({0, 0, 0, 0}, {0, 0}) == PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t ones = 0xffffffff;
  CHECK((philox4x32_10({ones, ones, ones, ones}, {ones, ones}) ==
         PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK((philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
         PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST("rng: uniform numbers stay in [0, 1) and use every argument") {
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const double u = philox_uniform(9, i, 0);
    CHECK(u >= 0 && u < 1);
    sum += u;
  }
  CHECK(sum > 4850 && sum < 5150);  // five standard deviations
  const uint64_t high = uint64_t{1} << 40;
  const std::set<double> distinct = {philox_uniform(1, 2, 3),        philox_uniform(1 + high, 2, 3),
                                     philox_uniform(1, 2 + high, 3), philox_uniform(1, 2, 3 + high),
                                     philox_uniform(2, 2, 3),        philox_uniform(1, 3, 3),
                                     philox_uniform(1, 2, 4)};
  CHECK_EQ(distinct.size(), 7u);
}
