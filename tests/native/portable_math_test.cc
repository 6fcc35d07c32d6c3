// SPDX-License-Identifier: Apache-2.0
// The functions of their own bits against the host's in more bits, and some of those bits.
#include "base/portable_math.h"

#include <cmath>
#include <limits>

#include "check.h"

using namespace maestrale;

namespace {

// Uniform in [0, 1).
double random(uint64_t& state) {
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 11) * 0x1p-53;
}

// How many units in the last place of a binary64 `got` is away from `want`.
double error_in_units(double got, long double want) {
  int exponent;
  std::frexp(want, &exponent);
  return double(std::fabs(got - want) / std::ldexp(1.0L, std::max(exponent - 53, -1074)));
}

}  // namespace

TEST("portable math: exp is within 1.5 units in the last place of e^x, subnormal results included") {
  uint64_t state = 1;
  double worst = 0;
  for (const double width : {1e-9, 0.7, 30.0, 708.0, 745.0})
    for (int i = 0; i < 200000; ++i) {
      const double x = -width * random(state);
      worst = std::max(worst, error_in_units(portable_exp(x), std::exp((long double)(x))));
      if (x > -709) worst = std::max(worst, error_in_units(portable_exp(-x), std::exp((long double)(-x))));
    }
  CHECK(worst < 1.5);
  const double inf = std::numeric_limits<double>::infinity();
  CHECK(portable_exp(0) == 1 && portable_exp(-0.0) == 1);
  CHECK(portable_exp(-inf) == 0 && portable_exp(-1e300) == 0 && portable_exp(-745.5) == 0);
  CHECK(portable_exp(-745) == std::numeric_limits<double>::denorm_min());
  CHECK(portable_exp(inf) == inf && portable_exp(1e300) == inf && portable_exp(709.8) == inf);
  CHECK(portable_exp(709.7) < inf);
  CHECK(std::isnan(portable_exp(std::nan(""))));
}

TEST("portable math: log is within 1.5 units in the last place, however close to 1") {
  uint64_t state = 1;
  double worst = 0;
  for (const double power : {1e-9, 1e-3, 1.0, 100.0, 1000.0})
    for (int i = 0; i < 200000; ++i) {
      const double x = std::exp2(power * (2 * random(state) - 1));
      if (x != 1) worst = std::max(worst, error_in_units(portable_log(x), std::log((long double)(x))));
    }
  CHECK(worst < 1.5);
  CHECK(portable_log(1) == 0);
  CHECK(portable_log(0x1p-1022) < -708 && portable_log(0x1p1023) > 709);
}

// A sum over the bits of many results, which no compiler, machine or library may change.
TEST("portable math: the bits are what they are") {
  uint64_t state = 1, exps = 0, logs = 0;
  for (int i = 0; i < 100000; ++i) {
    const double u = random(state);
    exps = exps * 31 + portable_math::bits_of(portable_exp(-40 * u));
    logs = logs * 31 + portable_math::bits_of(portable_log(u + 0x1p-60));
  }
  CHECK_EQ(exps, 0xe124f3359550d392u);
  CHECK_EQ(logs, 0x77e0e3732225b31fu);
}
