// SPDX-License-Identifier: Apache-2.0
// Bounds are those of the PTX ISA manual (floating-point instructions, tables of maximum errors).
#include "exec/approx.h"

#include "exec/cta.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {

double approx_value(Approx function, double a, double b) {
  switch (function) {
    case Approx::kDivide: return a / b;
    case Approx::kReciprocal: return 1 / a;
    case Approx::kRoot: return std::sqrt(a);
    case Approx::kReciprocalRoot: return 1 / std::sqrt(a);
    case Approx::kExp2: return std::exp2(a);
    case Approx::kLog2: return std::log2(a);
    case Approx::kSine: return std::sin(a);
    case Approx::kCosine: return std::cos(a);
    case Approx::kTanh: return std::tanh(a);
  }
  return 0;
}

ApproxError approx_error(Approx function) {
  switch (function) {
    case Approx::kDivide: return {0x1p-22, 0};      // 2 ulp
    case Approx::kReciprocal: return {0x1p-23, 0};  // 1 ulp
    case Approx::kRoot: return {0x1p-23, 0};
    case Approx::kReciprocalRoot: return {0x1.12p-23, 0};  // 2^-22.9
    case Approx::kExp2: return {0x1p-22, 0};
    case Approx::kLog2: return {0, 0x1p-22};
    case Approx::kSine: return {0, 0x1.6ap-21};  // 2^-20.5 in [-pi, pi]
    case Approx::kCosine: return {0, 0x1.6ap-21};
    case Approx::kTanh: return {0x1p-11, 0};
  }
  return {0, 0};
}

namespace {

template <Approx kFunction, bool kFlush>
void approx(Warp& w, const Op& op, uint32_t mask) {
  const float* a = w.reg<float>(op.src[0]);
  const float* b = w.reg<float>(kFunction == Approx::kDivide ? op.src[1] : op.src[0]);
  float* d = w.reg<float>(op.dst);
  const bool perturb = w.cta->options().perturb;
  each_lane(mask, [&](int i) {
    const float x = kFlush ? flush(a[i]) : a[i];
    const float y = kFlush ? flush(b[i]) : b[i];
    double value = approx_value(kFunction, x, y);
    if (perturb && std::isfinite(value) && value != 0) {
      const ApproxError e = approx_error(kFunction);
      const uint32_t hash = (std::bit_cast<uint32_t>(x) ^ uint32_t(op.line)) * 0x9e3779b1u;
      const double error = e.relative * std::fabs(value) + e.absolute;
      value += (hash >> 31) ? error : -error;
    }
    const float r = float(value);
    d[i] = canonical(kFlush ? flush(r) : r);
  });
}

template <bool kFlush>
Handler handler(Approx function) {
  switch (function) {
    case Approx::kDivide: return approx<Approx::kDivide, kFlush>;
    case Approx::kReciprocal: return approx<Approx::kReciprocal, kFlush>;
    case Approx::kRoot: return approx<Approx::kRoot, kFlush>;
    case Approx::kReciprocalRoot: return approx<Approx::kReciprocalRoot, kFlush>;
    case Approx::kExp2: return approx<Approx::kExp2, kFlush>;
    case Approx::kLog2: return approx<Approx::kLog2, kFlush>;
    case Approx::kSine: return approx<Approx::kSine, kFlush>;
    case Approx::kCosine: return approx<Approx::kCosine, kFlush>;
    case Approx::kTanh: return approx<Approx::kTanh, kFlush>;
  }
  return nullptr;
}

}  // namespace

Handler approx_handler(Approx function, bool ftz) {
  return ftz ? handler<true>(function) : handler<false>(function);
}

}  // namespace maestrale::ptxsim
