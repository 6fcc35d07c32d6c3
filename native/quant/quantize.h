// SPDX-License-Identifier: Apache-2.0
// From binary32 rows to stored rows. The block quantisers choose scales and codes as the reference
// quantisers of ggml do without an importance matrix, so that files have the published quality; the
// result depends on the values alone, not on threads or instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Every type but IQ4_NL and IQ4_XS, which are only read.
constexpr bool can_quantize(QuantType type) {
  return type != QuantType::kIQ4_NL && type != QuantType::kIQ4_XS;
}

// Writes row_bytes(type, cols) bytes to `out`, which needs no alignment; `cols` is a multiple of the type's
// items_per_block. Throws Error{kModelFormat} when a weight is infinite or NaN or too large for the type,
// Error{kInvalidArg} when can_quantize(type) is false.
void quantize_row(QuantType type, const float* in, int64_t cols, std::byte* out);

}  // namespace maestrale
