// SPDX-License-Identifier: Apache-2.0
// Roundings that C++ does not offer: to half and bfloat16 in one step, and to float in the directed
// modes. Sums whose exact value does not fit a double are first rounded to odd, which keeps a later
// rounding to fewer bits correct (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums:
// proved algorithms using rounding to odd", 2008).
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace maestrale::ptxsim {

enum class Round : uint8_t { kNearest, kZero, kDown, kUp };

inline constexpr uint32_t kNanF32 = 0x7fffffffu;  // what PTX arithmetic returns for NaN
inline constexpr uint16_t kNanF16 = 0x7fffu, kNanBf16 = 0x7fffu;

inline float canonical(float x) { return x != x ? std::bit_cast<float>(kNanF32) : x; }

// a + b, rounded to odd.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double error = (a - (sum - part)) + (b - part);
  if (!(error != 0) || !std::isfinite(sum)) return sum;  // exact, or not finite
  const uint64_t bits = std::bit_cast<uint64_t>(sum);
  if (bits & 1) return sum;
  return std::bit_cast<double>((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

// Sign of an exact zero sum of x and y: minus only when rounding down, or when both are minus zero.
inline double signed_zero(double sum, double x, double y, Round round) {
  return sum == 0 && round == Round::kDown && std::signbit(x) != std::signbit(y) ? -0.0 : sum;
}

inline float round_to_float(double x, Round round) {
  const float nearest = float(x);
  const auto below = [&] { return std::nextafterf(nearest, -std::numeric_limits<float>::infinity()); };
  const auto above = [&] { return std::nextafterf(nearest, std::numeric_limits<float>::infinity()); };
  if (!std::isfinite(x)) return nearest;
  const bool down = round == Round::kDown || (round == Round::kZero && x > 0);
  const bool up = round == Round::kUp || (round == Round::kZero && x < 0);
  if (down && double(nearest) > x) return below();
  if (up && double(nearest) < x) return above();
  return nearest;
}

// The bits of x in a format of kExponent exponent and kFraction fraction bits.
template <int kExponent, int kFraction>
inline uint32_t round_to_format(double x, Round round) {
  constexpr int kBias = (1 << (kExponent - 1)) - 1;
  constexpr uint32_t kInfinity = ((1u << kExponent) - 1) << kFraction;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const bool negative = bits >> 63;
  const uint32_t sign = negative ? 1u << (kExponent + kFraction) : 0;
  if (x != x) return (1u << (kExponent + kFraction)) - 1;  // canonical NaN
  if (std::isinf(x)) return sign | kInfinity;
  int exponent = int(bits >> 52 & 0x7ff);
  uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  if (exponent == 0 && fraction == 0) return sign;
  if (exponent != 0) fraction |= uint64_t{1} << 52;
  exponent = (exponent == 0 ? 1 : exponent) - 1023 + kBias;
  int drop = 52 - kFraction;
  if (exponent < 1) {  // subnormal in the target
    drop += 1 - exponent;
    exponent = 1;
  }
  uint64_t kept, rest, half;
  if (drop > 62) {
    kept = 0, rest = 1, half = 2;  // far below the smallest step
  } else {
    kept = fraction >> drop;
    rest = fraction & ((uint64_t{1} << drop) - 1);
    half = uint64_t{1} << (drop - 1);
  }
  bool up = false;
  switch (round) {
    case Round::kNearest: up = rest > half || (rest == half && (kept & 1)); break;
    case Round::kZero: break;
    case Round::kDown: up = negative && rest; break;
    case Round::kUp: up = !negative && rest; break;
  }
  kept += up;
  // A carry out of the fraction lands in the exponent field, as it should.
  const uint64_t magnitude = (uint64_t(exponent - 1) << kFraction) + kept;
  if (magnitude >= kInfinity) {
    const bool to_infinity =
        round == Round::kNearest || (round == Round::kDown && negative) || (round == Round::kUp && !negative);
    return sign | (to_infinity ? kInfinity : kInfinity - 1);
  }
  return sign | uint32_t(magnitude);
}

inline uint16_t to_half(double x, Round round = Round::kNearest) {
  return uint16_t(round_to_format<5, 10>(x, round));
}
inline uint16_t to_bfloat(double x, Round round = Round::kNearest) {
  return uint16_t(round_to_format<8, 7>(x, round));
}

inline float from_half(uint16_t h) {
  // The exponent is moved by a multiplication, which also makes subnormals come out right.
  const uint32_t shifted = uint32_t(h & 0x7fff) << 13;
  const float scaled = std::bit_cast<float>(shifted) * 0x1p112f;
  const uint32_t bits = std::bit_cast<uint32_t>(scaled) | ((h & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u);
  return std::bit_cast<float>(bits | uint32_t(h & 0x8000) << 16);
}
inline float from_bfloat(uint16_t b) { return std::bit_cast<float>(uint32_t(b) << 16); }

inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

}  // namespace maestrale::ptxsim
