// SPDX-License-Identifier: Apache-2.0
// e^x and log x in binary64 with the same bits on every machine and on a GPU, where libm's and CUDA's differ
// in the last one. Only sums, products and quotients, each rounded once: the host is compiled without
// contraction, and the device is told so of every product. Errors stay below 1.5 units in the last
// place (the tests hold them to that); nobody needs the best, everybody the same.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define MAESTRALE_HOST_DEVICE __host__ __device__
#else
#define MAESTRALE_HOST_DEVICE
#endif

namespace maestrale {

// a * b, rounded before anything is added to it.
MAESTRALE_HOST_DEVICE inline double product(double a, double b) {
#ifdef __CUDA_ARCH__
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}
MAESTRALE_HOST_DEVICE inline float product(float a, float b) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

namespace portable_math {

MAESTRALE_HOST_DEVICE inline uint64_t bits_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
MAESTRALE_HOST_DEVICE inline double from_bits(uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
// 2^n, which must be a normal number.
MAESTRALE_HOST_DEVICE inline double power_of_two(int n) { return from_bits(uint64_t(n + 1023) << 52); }

// ln 2 in two parts, the first one so short that up to 2^16 times it is exact.
constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b3ap-40;

}  // namespace portable_math

// e^x of any number or infinity, also where the result is subnormal; e^0 is 1.
MAESTRALE_HOST_DEVICE inline double portable_exp(double x) {
  using namespace portable_math;
  if (x < -746) return 0;  // below half of the least subnormal
  if (!(x <= 710)) return product(x, 0x1p1023);
  // x = k ln 2 + r with |r| <= 0.347, and the series of e^r, of which the first omitted term is r^14 / 14!.
  const int k = int(product(x, 0x1.71547652b82fep+0) + (x < 0 ? -0.5 : 0.5));
  const double r = x - product(double(k), kLn2High) - product(double(k), kLn2Low);
  constexpr double kInverseFactorials[] = {
      1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720,
      1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0,         1.0};
  double sum = 1.0 / 6227020800;
  for (const double term : kInverseFactorials) sum = term + product(sum, r);
  // In two steps, so that no factor leaves the normal numbers and a subnormal result is rounded once.
  return product(product(sum, power_of_two(k / 2)), power_of_two(k - k / 2));
}

// The natural logarithm of a positive normal number; that of 1 is 0.
MAESTRALE_HOST_DEVICE inline double portable_log(double x) {
  using namespace portable_math;
  const uint64_t bits = bits_of(x);
  int exponent = int(bits >> 52) - 1023;
  double m = from_bits((bits & 0xfffffffffffff) | uint64_t{1023} << 52);
  if (m > 1.4142135623730951) {
    m = product(m, 0.5);
    ++exponent;
  }
  // log m = 2 artanh s = 2 s + s t, where t = 2 s^2 / 3 + 2 s^4 / 5 + ... up to s^20; as 2 s = f - s f, most
  // of it is f, which is exact.
  const double f = m - 1, s = f / (2 + f), z = product(s, s);
  double t = 2.0 / 21;
  for (int n = 19; n >= 3; n -= 2) t = 2.0 / n + product(t, z);
  const double log_m = f - product(s, f - product(t, z));
  return product(double(exponent), kLn2High) + (log_m + product(double(exponent), kLn2Low));
}

}  // namespace maestrale
