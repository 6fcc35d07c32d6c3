// SPDX-License-Identifier: Apache-2.0
// From rows of GGUF blocks to panels (panel_layout.h), once, while a model loads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Packs `n_rows` (1..16) rows of row_bytes(type, cols) bytes each into one panel of
// panel_bytes(type, cols) bytes at `panel` (64-byte aligned); missing rows become zeros. `rows` is aligned
// for the type's blocks: 2 bytes.
// `cols` is a multiple of the type's block and of kColumnStep.
void pack_panel(QuantType type, const std::byte* rows, int n_rows, int64_t cols, std::byte* panel);

}  // namespace maestrale
