// SPDX-License-Identifier: Apache-2.0
// All kernels as one module. The build translates this file to PTX for compute capability 7.5 and 8.0 and
// embeds the text; the driver of the user's machine turns it into machine code.
#include "attention.cuh"
#include "draw_token.cuh"
#include "embed.cuh"
#include "low_rank.cuh"
#include "matmul.cuh"
#include "matmul_row.cuh"
#include "matmul_rows.cuh"
#include "matmul_tile.cuh"
#include "quantize.cuh"
#include "repack.cuh"
#include "repack_halves.cuh"
#include "rope.cuh"
#include "row_ops.cuh"
#include "top_logits.cuh"
