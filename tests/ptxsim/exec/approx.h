// SPDX-License-Identifier: Apache-2.0
// The approximate functions of the special function unit. They are computed correctly rounded, or, in
// the launch option `perturb`, off by the largest documented error with a sign drawn from the input,
// so that a test can show that a kernel tolerates both.
#pragma once

#include "exec/op.h"

namespace maestrale::ptxsim {

enum class Approx : uint8_t {
  kDivide,
  kReciprocal,
  kRoot,
  kReciprocalRoot,
  kExp2,
  kLog2,
  kSine,
  kCosine,
  kTanh
};

Handler approx_handler(Approx function, bool ftz);
// The value on the reals, in double; b is the divisor of kDivide.
double approx_value(Approx function, double a, double b);
// Largest error that the PTX manual allows: relative to the result, and absolute.
struct ApproxError {
  double relative, absolute;
};
ApproxError approx_error(Approx function);

}  // namespace maestrale::ptxsim
