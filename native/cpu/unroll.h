// SPDX-License-Identifier: Apache-2.0
// Loops that the compiler must unroll: what they index then lies in registers.
#pragma once

#include <utility>

namespace maestrale {

// Calls fn.template operator()<0>() ... <N - 1>(), unrolled.
template <int N, class Fn>
[[gnu::always_inline]] inline void unroll(Fn&& fn) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (fn.template operator()<i>(), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

}  // namespace maestrale
