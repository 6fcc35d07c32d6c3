// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace maestrale {

// n / d rounded up, for n >= 0 and d > 0.
constexpr int64_t ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

// The smallest multiple of `step` that is not below n; n + step must not overflow.
constexpr uint64_t round_up(uint64_t n, uint64_t step) { return (n + step - 1) / step * step; }

}  // namespace maestrale
