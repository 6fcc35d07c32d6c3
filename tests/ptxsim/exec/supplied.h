// SPDX-License-Identifier: Apache-2.0
// Functions that a driver links into kernels (vprintf, __assertfail), and the kinds of barriers.
#pragma once

#include <string_view>

#include "exec/op.h"

namespace maestrale::ptxsim {

bool is_supplied(std::string_view name);
Handler supplied(std::string_view name);

// Op::variant of Flow::kCtaBarrier.
inline constexpr int kBarSync = 1, kBarArrive = 2, kBarPopc = 3, kBarAnd = 4, kBarOr = 5, kBarKind = 7,
                     kBarAligned = 8;

}  // namespace maestrale::ptxsim
