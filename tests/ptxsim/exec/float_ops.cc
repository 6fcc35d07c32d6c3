// SPDX-License-Identifier: Apache-2.0
// Single and double precision: add sub mul fma div rcp sqrt min max abs neg copysign, exactly rounded,
// and the approximate functions (see approx.h for their errors).
#include "exec/approx.h"
#include "exec/dispatch.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

// Bits of Op::variant of the general handlers: rounding in 0-1.
constexpr int kFtz = 4, kSaturate = 8, kPropagateNan = 16;

// clang-format off
struct Add {
  template <class T> static T nearest(T a, T b, T) { return a + b; }
  static double exact(double a, double b, double, Round r) { return signed_zero(add_to_odd(a, b), a, b, r); }
};
struct Sub {
  template <class T> static T nearest(T a, T b, T) { return a - b; }
  static double exact(double a, double b, double, Round r) { return signed_zero(add_to_odd(a, -b), a, -b, r); }
};
struct Mul {
  template <class T> static T nearest(T a, T b, T) { return a * b; }
  static double exact(double a, double b, double, Round) { return a * b; }
};
struct Fma {
  static float nearest(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static double nearest(double a, double b, double c) { return __builtin_fma(a, b, c); }
  static double exact(double a, double b, double c, Round r) {
    return signed_zero(add_to_odd(a * b, c), a * b, c, r);
  }
};
// clang-format on

template <class F, int kArity, class T>
void nearest(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  const T* b = w.reg<T>(op.src[1]);
  const T* c = kArity == 3 ? w.reg<T>(op.src[2]) : b;
  lanes(w.reg<T>(op.dst), mask, [=](int i) {
    const T x = F::nearest(a[i], b[i], c[i]);
    if constexpr (sizeof(T) == 4)
      return canonical(x);
    else
      return x;
  });
}

template <class F, int kArity>
void rounded(Warp& w, const Op& op, uint32_t mask) {
  const float* a = w.reg<float>(op.src[0]);
  const float* b = w.reg<float>(op.src[1]);
  const float* c = kArity == 3 ? w.reg<float>(op.src[2]) : b;
  const Round round = Round(op.variant & 3);
  const bool ftz = op.variant & kFtz, saturate = op.variant & kSaturate;
  lanes(w.reg<float>(op.dst), mask, [=](int i) {
    float x = a[i], y = b[i], z = c[i];
    if (ftz) x = flush(x), y = flush(y), z = flush(z);
    float r =
        round == Round::kNearest ? F::nearest(x, y, z) : round_to_float(F::exact(x, y, z, round), round);
    if (ftz) r = flush(r);
    if (saturate) r = r > 0 ? (r < 1 ? r : 1.0f) : 0.0f;  // NaN becomes 0
    return canonical(r);
  });
}

int rounding(Modifiers& m) {
  if (m.accept("rn")) return int(Round::kNearest);
  if (m.accept("rz")) return int(Round::kZero);
  if (m.accept("rm")) return int(Round::kDown);
  if (m.accept("rp")) return int(Round::kUp);
  return -1;
}

void set_operands(Decoder& d, const Instruction& i, Op& op, Type type, int sources) {
  d.operands(i, size_t(sources) + 1);
  op.dst = d.destination(i.operands[0], type);
  for (int k = 0; k < sources; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], type);
}

template <class F, int kArity>
void decode_arithmetic(Decoder& d, const Instruction& i, Op& op) {
  if (decode_half(d, i, op)) return;
  Modifiers m(i);
  const int round = rounding(m);
  if (kArity == 3 && round < 0) m.unknown();  // fma has no default
  const bool ftz = m.accept("ftz"), saturate = m.accept("sat");
  const Type type = m.type();
  m.end();
  set_operands(d, i, op, type, kArity);
  op.variant = uint8_t((round < 0 ? 0 : round) | (ftz ? kFtz : 0) | (saturate ? kSaturate : 0));
  if (type == Type::kF32) {
    op.run = op.variant ? rounded<F, kArity> : nearest<F, kArity, float>;
  } else if (type == Type::kF64 && op.variant == 0) {
    op.run = nearest<F, kArity, double>;
  } else {
    d.fail("this rounding or type is not known for '" + i.opcode + "'");
  }
}

// ---- min, max: the operand that is a number wins; -0 is smaller than +0

template <class T, bool kMax>
void extremum(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  const T* b = w.reg<T>(op.src[1]);
  const bool ftz = op.variant & kFtz, propagate = op.variant & kPropagateNan;
  lanes(w.reg<T>(op.dst), mask, [=](int i) {
    T x = a[i], y = b[i];
    if constexpr (sizeof(T) == 4)
      if (ftz) x = flush(x), y = flush(y);
    const bool first = kMax ? x > y || (x == y && !std::signbit(x)) : x < y || (x == y && std::signbit(x));
    T r = x != x ? y : (y != y || first) ? x : y;
    if (propagate && (x != x || y != y)) r = std::numeric_limits<T>::quiet_NaN();
    if constexpr (sizeof(T) == 4) r = canonical(r);
    return r;
  });
}

template <bool kMax>
void decode_extremum(Decoder& d, const Instruction& i, Op& op) {
  if (decode_half(d, i, op)) return;
  Modifiers m(i);
  op.variant = uint8_t((m.accept("ftz") ? kFtz : 0) | (m.accept("NaN") ? kPropagateNan : 0));
  const Type type = m.type();
  m.end();
  set_operands(d, i, op, type, 2);
  op.run = type == Type::kF32 ? extremum<float, kMax> : extremum<double, kMax>;
  if (type != Type::kF32 && (type != Type::kF64 || op.variant)) d.fail("not a type of '" + i.opcode + "'");
}

// ---- sign operations work on bits: they also apply to NaN

template <class U, bool kNegate>
void sign(Warp& w, const Op& op, uint32_t mask) {
  const U* a = w.reg<U>(op.src[0]);
  constexpr U kSign = U(1) << (8 * sizeof(U) - 1);
  const bool ftz = op.variant & kFtz;
  lanes(w.reg<U>(op.dst), mask, [=](int i) {
    U x = a[i];
    if constexpr (sizeof(U) == 4)
      if (ftz && (x & 0x7f800000u) == 0) x &= kSign;
    return U(kNegate ? x ^ kSign : x & ~kSign);
  });
}

template <bool kNegate>
void decode_sign(Decoder& d, const Instruction& i, Op& op) {
  if (decode_half(d, i, op)) return;
  Modifiers m(i);
  op.variant = m.accept("ftz") ? kFtz : 0;
  const Type type = m.type();
  m.end();
  set_operands(d, i, op, type, 1);
  op.run = type == Type::kF32 ? sign<uint32_t, kNegate> : sign<uint64_t, kNegate>;
  if (type != Type::kF32 && (type != Type::kF64 || op.variant)) d.fail("not a type of '" + i.opcode + "'");
}

template <class U>
void copysign(Warp& w, const Op& op, uint32_t mask) {
  constexpr U kSign = U(1) << (8 * sizeof(U) - 1);
  binary_op<U, U, U>(w, op, mask, [](U a, U b) { return (b & ~kSign) | (a & kSign); });
}

void decode_copysign(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  if (type != Type::kF32 && type != Type::kF64) d.fail("copysign takes .f32 or .f64");
  set_operands(d, i, op, type, 2);
  op.run = type == Type::kF32 ? copysign<uint32_t> : copysign<uint64_t>;
}

// ---- division, reciprocal, square root

struct Divide {
  template <class T>
  static T of(T a, T b) {
    return a / b;
  }
};
struct Reciprocal {
  template <class T>
  static T of(T a, T) {
    return T(1) / a;
  }
};
struct Root {
  template <class T>
  static T of(T a, T) {
    return std::sqrt(a);
  }
};

template <class F, int kArity, class T>
void quotient(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  const T* b = w.reg<T>(op.src[kArity - 1]);
  const bool ftz = op.variant & kFtz;
  lanes(w.reg<T>(op.dst), mask, [=](int i) {
    if constexpr (sizeof(T) == 4) {
      const float r = F::of(ftz ? flush(a[i]) : a[i], ftz ? flush(b[i]) : b[i]);
      return canonical(ftz ? flush(r) : r);
    } else {
      return F::of(a[i], b[i]);
    }
  });
}

template <class F, int kArity, Approx kApprox>
void decode_quotient(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const bool approximate = m.accept("approx") || (kArity == 2 && m.accept("full"));
  if (!approximate) m.expect("rn");
  const bool ftz = m.accept("ftz");
  const Type type = m.type();
  m.end();
  set_operands(d, i, op, type, kArity);
  op.variant = ftz ? kFtz : 0;
  if (type == Type::kF32) {
    op.run = approximate ? approx_handler(kApprox, ftz) : quotient<F, kArity, float>;
  } else if (type == Type::kF64 && !approximate && !ftz) {
    op.run = quotient<F, kArity, double>;
  } else {
    d.fail("not a type of '" + i.opcode + "'");
  }
}

template <Approx kApprox>
void decode_approx(Decoder& d, const Instruction& i, Op& op) {
  if (decode_half(d, i, op)) return;
  Modifiers m(i);
  m.expect("approx");
  const bool ftz = m.accept("ftz");
  const Type type = m.type();
  m.end();
  if (type != Type::kF32) d.fail("'" + i.opcode + ".approx' takes .f32");
  set_operands(d, i, op, type, 1);
  op.run = approx_handler(kApprox, ftz);
}

}  // namespace

void decode_float_add(Decoder& d, const Instruction& i, Op& op) { decode_arithmetic<Add, 2>(d, i, op); }
void decode_float_sub(Decoder& d, const Instruction& i, Op& op) { decode_arithmetic<Sub, 2>(d, i, op); }
void decode_float_mul(Decoder& d, const Instruction& i, Op& op) { decode_arithmetic<Mul, 2>(d, i, op); }
void decode_float_fma(Decoder& d, const Instruction& i, Op& op) { decode_arithmetic<Fma, 3>(d, i, op); }
void decode_float_min(Decoder& d, const Instruction& i, Op& op) { decode_extremum<false>(d, i, op); }
void decode_float_max(Decoder& d, const Instruction& i, Op& op) { decode_extremum<true>(d, i, op); }
void decode_float_neg(Decoder& d, const Instruction& i, Op& op) { decode_sign<true>(d, i, op); }
void decode_float_abs(Decoder& d, const Instruction& i, Op& op) { decode_sign<false>(d, i, op); }
void decode_float_div(Decoder& d, const Instruction& i, Op& op) {
  decode_quotient<Divide, 2, Approx::kDivide>(d, i, op);
}

void add_float(Opcodes& all) {
  all["fma"] = decode_float_fma;
  all["copysign"] = decode_copysign;
  all["rcp"] = decode_quotient<Reciprocal, 1, Approx::kReciprocal>;
  all["sqrt"] = decode_quotient<Root, 1, Approx::kRoot>;
  all["rsqrt"] = decode_approx<Approx::kReciprocalRoot>;
  all["ex2"] = decode_approx<Approx::kExp2>;
  all["lg2"] = decode_approx<Approx::kLog2>;
  all["sin"] = decode_approx<Approx::kSine>;
  all["cos"] = decode_approx<Approx::kCosine>;
  all["tanh"] = decode_approx<Approx::kTanh>;
}

}  // namespace maestrale::ptxsim
