// SPDX-License-Identifier: Apache-2.0
// All block formats under one roof, with the vocabulary they share:
//
//   Block::kItems      weights in a block
//   Block::kOffset     what is subtracted from an unsigned code to get the signed weight
//   Block::kSubItems   weights under one integer scale (types whose blocks have sub-blocks)
//   block.d, .m/.dmin  binary16 scale and minimum
//
//   unpack_codes(block, uint8_t codes[kItems])                  every type; element order
//   unpack_scales(block, int16_t scales[kItems / kSubItems])    types with sub-blocks
//   unpack_mins(block, int16_t mins[kItems / kSubItems])        Q2_K, Q4_K, Q5_K
//   dequantize(block, float out[kItems])                        every type; the defining arithmetic
//
// Fields are little-endian, as is every machine this engine runs on.
#pragma once

#include <bit>
#include <string>

#include "base/error.h"
#include "quant/iq4.h"
#include "quant/nf4.h"
#include "quant/q2_k.h"
#include "quant/q3_k.h"
#include "quant/q4_0.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"
#include "quant/types.h"

namespace maestrale {

static_assert(std::endian::native == std::endian::little);

// Calls visit.template operator()<BlockX>() with the block struct of `type` and returns its result.
// F32, F16 and BF16 have no block struct: Error{kInternal}.
template <class Visitor>
decltype(auto) visit_block(QuantType type, Visitor&& visit) {
  switch (type) {
    case QuantType::kQ4_0: return visit.template operator()<BlockQ4_0>();
    case QuantType::kQ4_1: return visit.template operator()<BlockQ4_1>();
    case QuantType::kQ5_0: return visit.template operator()<BlockQ5_0>();
    case QuantType::kQ5_1: return visit.template operator()<BlockQ5_1>();
    case QuantType::kQ8_0: return visit.template operator()<BlockQ8_0>();
    case QuantType::kQ2_K: return visit.template operator()<BlockQ2_K>();
    case QuantType::kQ3_K: return visit.template operator()<BlockQ3_K>();
    case QuantType::kQ4_K: return visit.template operator()<BlockQ4_K>();
    case QuantType::kQ5_K: return visit.template operator()<BlockQ5_K>();
    case QuantType::kQ6_K: return visit.template operator()<BlockQ6_K>();
    case QuantType::kIQ4_NL: return visit.template operator()<BlockIQ4_NL>();
    case QuantType::kIQ4_XS: return visit.template operator()<BlockIQ4_XS>();
    case QuantType::kNF4: return visit.template operator()<BlockNF4>();
    case QuantType::kFP4: return visit.template operator()<BlockFP4>();
    case QuantType::kF32:
    case QuantType::kF16:
    case QuantType::kBF16: break;
  }
  throw Error(ErrorCode::kInternal, "type " + std::string(quant_traits(type).name) + " has no blocks");
}

}  // namespace maestrale
