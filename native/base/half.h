// SPDX-License-Identifier: Apache-2.0
// IEEE binary16 and bfloat16 <-> binary32, bit exact and branch-light, for code that has no SIMD.
//
//   binary16   s eeeee mmmmmmmmmm                  value = (-1)^s * 2^(e-15) * 1.m
//   bfloat16   s eeeeeeee mmmmmmm                  the upper half of a binary32
//   binary32   s eeeeeeee mmmmmmmmmmmmmmmmmmmmmmm
#pragma once

#include <bit>
#include <cstdint>

namespace maestrale {

inline float f16_to_f32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t magnitude = h & 0x7fff;
  if (magnitude >= 0x7c00)  // infinity or NaN; NaN payloads are kept and made quiet, as vcvtph2ps does
    return std::bit_cast<float>(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13) |
                                (magnitude > 0x7c00 ? 0x400000 : 0));
  // Shifting exponent and mantissa into place leaves the exponent 112 too small; the multiplication
  // repairs that and normalises binary16 denormals at the same time, exactly.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

// Round to nearest even; overflow gives infinity; NaN stays NaN (quiet).
inline uint16_t f32_to_f16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to 65536 or more
  if (magnitude < 0x38800000) {                                 // below 2^-14: denormal result
    // Adding 0.5 makes the FPU round at 2^-24, the denormal step; the low bits are the result.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return uint16_t(sign | uint16_t(std::bit_cast<uint32_t>(shifted)));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return uint16_t(sign | uint16_t((rounded - 0x38000000) >> 13));
}

inline float bf16_to_f32(uint16_t b) { return std::bit_cast<float>(uint32_t(b) << 16); }

inline uint16_t f32_to_bf16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 0x40);  // quiet NaN
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace maestrale
