// SPDX-License-Identifier: Apache-2.0
// From panels (panel_layout.h) back to rows of GGUF blocks, bit for bit: for devices that have a layout of
// their own, and for whatever reads the rows of a packed file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Rows [first_row, first_row + n_rows) of the 16 that pack_panel() was given, as it was given them: scales
// that are NaN may come back as another NaN. Throws Error{kInternal} for NF4 and FP4, whose scales panels
// hold rounded.
void unpack_rows(QuantType type, const std::byte* panel, int first_row, int n_rows, int64_t cols,
                 std::byte* rows);

}  // namespace maestrale
