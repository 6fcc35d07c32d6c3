// SPDX-License-Identifier: Apache-2.0
// Whether stored floats are numbers: neither infinite nor NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Whether the `n` values of a row of F32, F16 or BF16 are all finite. Rows of other types are not examined:
// true.
bool all_finite(QuantType type, const std::byte* row, int64_t n);

}  // namespace maestrale
