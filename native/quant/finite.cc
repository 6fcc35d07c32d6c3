// SPDX-License-Identifier: Apache-2.0
#include "quant/finite.h"

#include <cstring>

namespace maestrale {
namespace {

// An exponent of ones is that of infinity and NaN. No branch: the loop runs over all weights of a model.
template <class Bits>
bool no_exponent_of_ones(const std::byte* row, int64_t n, Bits exponent) {
  Bits found = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, row + size_t(i) * sizeof bits, sizeof bits);
    found = Bits(found | Bits((bits & exponent) == exponent));
  }
  return found == 0;
}

}  // namespace

bool all_finite(QuantType type, const std::byte* row, int64_t n) {
  switch (type) {
    case QuantType::kF32: return no_exponent_of_ones<uint32_t>(row, n, 0x7f800000);
    case QuantType::kF16: return no_exponent_of_ones<uint16_t>(row, n, 0x7c00);
    case QuantType::kBF16: return no_exponent_of_ones<uint16_t>(row, n, 0x7f80);
    default: return true;
  }
}

}  // namespace maestrale
