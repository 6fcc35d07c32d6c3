// SPDX-License-Identifier: Apache-2.0
// Floating-point arithmetic, form by form. The oracles use the host's own arithmetic: its rounding modes
// (fesetround), its fused multiply-add, its _Float16.
#include <cfenv>
#include <cmath>

#include "check.h"
#include "forms.h"

namespace maestrale::ptxsim::test {
namespace {

float canonical(float x) { return x != x ? as<float>(0x7fffffff) : x; }
float flush(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }

// f under a rounding mode of the host; the operands pass through memory so that nothing is folded.
template <class F>
float rounded(int mode, F f) {
  std::fesetround(mode);
  volatile float result = f();
  std::fesetround(FE_TONEAREST);
  return result;
}

struct Mode {
  const char* name;
  int host;
};
const Mode kModes[] = {{"", FE_TONEAREST},
                       {".rn", FE_TONEAREST},
                       {".rz", FE_TOWARDZERO},
                       {".rm", FE_DOWNWARD},
                       {".rp", FE_UPWARD}};

using Float3 = float (*)(float, float, float);

void add_rounded(std::vector<Form>& out, const std::string& name, int arity, Float3 f, bool default_mode) {
  const std::string operands = arity == 2 ? " d, a, b;" : " d, a, b, c;";
  for (const Mode& mode : kModes)
    for (const bool ftz : {false, true})
      for (const bool sat : {false, true}) {
        if (!*mode.name && !default_mode) continue;
        out.push_back({name + mode.name + (ftz ? ".ftz" : "") + (sat ? ".sat" : "") + ".f32" + operands,
                       Type::kF32, std::vector<Type>(size_t(arity), Type::kF32),
                       [=](Bits a, Bits b, Bits c, Bits) {
                         float x = as<float>(a), y = as<float>(b), z = as<float>(c);
                         if (ftz) {
                           x = flush(x);
                           y = flush(y);
                           z = flush(z);
                         }
                         float r = rounded(mode.host, [&] { return f(x, y, z); });
                         if (ftz) r = flush(r);
                         if (sat) r = r >= 0 ? std::min(r + 0.0f, 1.0f) : 0.0f;
                         return bits_of(canonical(r));
                       }});
      }
}

TEST("ptxsim forms: f32 add, sub, mul, fma in every rounding mode, with .ftz and .sat") {
  std::vector<Form> f;
  add_rounded(
      f, "add", 2,
      [](float a, float b, float) {
        volatile float x = a, y = b;
        return x + y;
      },
      true);
  add_rounded(
      f, "sub", 2,
      [](float a, float b, float) {
        volatile float x = a, y = b;
        return x - y;
      },
      true);
  add_rounded(
      f, "mul", 2,
      [](float a, float b, float) {
        volatile float x = a, y = b;
        return x * y;
      },
      true);
  add_rounded(
      f, "fma", 3, [](float a, float b, float c) { return std::fma(a, b, c); }, false);
  check_forms(f);
}

template <class T>
Form simple(const std::string& text, Type type, int arity, T (*f)(T, T)) {
  return {text, type, std::vector<Type>(size_t(arity), type), [f](Bits a, Bits b, Bits, Bits) {
            T r = f(as<T>(a), as<T>(b));
            if (sizeof(T) == 4 && r != r) return Bits{0x7fffffff};
            return bits_of(r);
          }};
}

TEST("ptxsim forms: f64 add, sub, mul, fma, div, rcp, sqrt") {
  const Type t = Type::kF64;
  std::vector<Form> f;
  // Results that are no numbers become 1: their payloads are the host's.
  const auto add = [&](const std::string& text, int arity, double (*g)(double, double, double)) {
    f.push_back({text + " setp.nan.f64 q, d, d; selp.b64 d, 1, d, q;", t, std::vector<Type>(size_t(arity), t),
                 [g](Bits a, Bits b, Bits c, Bits) {
                   const double r = g(as<double>(a), as<double>(b), as<double>(c));
                   return r != r ? Bits{1} : bits_of(r);
                 }});
  };
  add("add.f64 d, a, b;", 2, [](double a, double b, double) { return a + b; });
  add("add.rn.f64 d, a, b;", 2, [](double a, double b, double) { return a + b; });
  add("sub.f64 d, a, b;", 2, [](double a, double b, double) { return a - b; });
  add("mul.f64 d, a, b;", 2, [](double a, double b, double) { return a * b; });
  add("mul.rn.f64 d, a, b;", 2, [](double a, double b, double) { return a * b; });
  add("fma.rn.f64 d, a, b, c;", 3, [](double a, double b, double c) { return std::fma(a, b, c); });
  add("div.rn.f64 d, a, b;", 2, [](double a, double b, double) { return a / b; });
  add("rcp.rn.f64 d, a;", 1, [](double a, double, double) { return 1 / a; });
  add("sqrt.rn.f64 d, a;", 1, [](double a, double, double) { return std::sqrt(a); });
  check_forms(f);
}

float smaller(float a, float b) {
  return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
}
float larger(float a, float b) {
  return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? b : a) : std::max(a, b);
}

TEST("ptxsim forms: f32 min, max, abs, neg, copysign, exact div, rcp, sqrt") {
  const Type t = Type::kF32;
  std::vector<Form> f = {
      simple<float>("min.f32 d, a, b;", t, 2, smaller),
      simple<float>("max.f32 d, a, b;", t, 2, larger),
      simple<float>("min.ftz.f32 d, a, b;", t, 2,
                    [](float a, float b) { return smaller(flush(a), flush(b)); }),
      simple<float>("min.NaN.f32 d, a, b;", t, 2,
                    [](float a, float b) { return a != a || b != b ? NAN : smaller(a, b); }),
      simple<float>("max.NaN.f32 d, a, b;", t, 2,
                    [](float a, float b) { return a != a || b != b ? NAN : larger(a, b); }),
      simple<float>("div.rn.f32 d, a, b;", t, 2, [](float a, float b) { return a / b; }),
      simple<float>("div.rn.ftz.f32 d, a, b;", t, 2,
                    [](float a, float b) { return flush(flush(a) / flush(b)); }),
      simple<float>("rcp.rn.f32 d, a;", t, 1, [](float a, float) { return 1 / a; }),
      simple<float>("sqrt.rn.f32 d, a;", t, 1, [](float a, float) { return std::sqrt(a); }),
      {"abs.f32 d, a;", t, {t}, [](Bits a, Bits, Bits, Bits) { return a & 0x7fffffff; }},
      {"neg.f32 d, a;", t, {t}, [](Bits a, Bits, Bits, Bits) { return a ^ 0x80000000; }},
      {"abs.f64 d, a;",
       Type::kF64,
       {Type::kF64},
       [](Bits a, Bits, Bits, Bits) { return a & ~(Bits{1} << 63); }},
      {"neg.f64 d, a;",
       Type::kF64,
       {Type::kF64},
       [](Bits a, Bits, Bits, Bits) { return a ^ Bits { 1 } << 63; }},
      {"abs.ftz.f32 d, a;",
       t,
       {t},
       [](Bits a, Bits, Bits, Bits) { return (a & 0x7f800000) ? a & 0x7fffffff : 0; }},
      {"neg.ftz.f32 d, a;",
       t,
       {t},
       [](Bits a, Bits, Bits, Bits) { return (a & 0x7f800000) ? a ^ 0x80000000 : ~a & 0x80000000; }},
      {"copysign.f32 d, a, b;", t, {t, t}, [](Bits a, Bits b, Bits, Bits) {
         return (b & 0x7fffffff) | (a & 0x80000000);
       }}};
  check_forms(f);
}

TEST("ptxsim forms: approximate functions, correctly rounded unless perturbed") {
  const Type t = Type::kF32;
  const auto add = [&](std::vector<Form>& f, const std::string& text, int arity, double (*g)(double, double),
                       bool ftz) {
    f.push_back({text, t, std::vector<Type>(size_t(arity), t), [=](Bits a, Bits b, Bits, Bits) {
                   const float x = ftz ? flush(as<float>(a)) : as<float>(a),
                               y = ftz ? flush(as<float>(b)) : as<float>(b);
                   const float r = float(g(x, y));
                   return bits_of(canonical(ftz ? flush(r) : r));
                 }});
  };
  std::vector<Form> f;
  for (const bool ftz : {false, true}) {
    const std::string s = ftz ? ".ftz.f32" : ".f32";
    add(
        f, "ex2.approx" + s + " d, a;", 1, [](double a, double) { return std::exp2(a); }, ftz);
    add(
        f, "lg2.approx" + s + " d, a;", 1, [](double a, double) { return std::log2(a); }, ftz);
    add(
        f, "rsqrt.approx" + s + " d, a;", 1, [](double a, double) { return 1 / std::sqrt(a); }, ftz);
    add(
        f, "sqrt.approx" + s + " d, a;", 1, [](double a, double) { return std::sqrt(a); }, ftz);
    add(
        f, "rcp.approx" + s + " d, a;", 1, [](double a, double) { return 1 / a; }, ftz);
    add(
        f, "div.approx" + s + " d, a, b;", 2, [](double a, double b) { return a / b; }, ftz);
    add(
        f, "div.full" + s + " d, a, b;", 2, [](double a, double b) { return a / b; }, ftz);
    add(
        f, "sin.approx" + s + " d, a;", 1, [](double a, double) { return std::sin(a); }, ftz);
    add(
        f, "cos.approx" + s + " d, a;", 1, [](double a, double) { return std::cos(a); }, ftz);
  }
  add(
      f, "tanh.approx.f32 d, a;", 1, [](double a, double) { return std::tanh(a); }, false);
  check_forms(f);
}

// ---- halves

struct F16 {
  static double get(Bits h) { return double(as<_Float16>(h)); }
  static Bits put(long double x) {  // rounded once: x is exact
    const _Float16 r = _Float16(x);
    return r != r ? 0x7fff : bits_of(r);
  }
};
struct Bf16 {
  static double get(Bits h) { return as<float>(h << 16); }
  // To nearest even by comparing with the two neighbours.
  static Bits put(long double x) {
    if (x != x) return 0x7fff;
    const Bits sign = std::signbit(x) ? 0x8000 : 0;
    const long double m = std::fabs(x);
    Bits low = 0, high = 0x7f80;
    while (high - low > 1) {
      const Bits middle = (low + high) / 2;
      ((long double)(get(middle)) <= m ? low : high) = middle;
    }
    if (std::isinf(x)) return sign | 0x7f80;
    const long double below = get(low), above = high == 0x7f80 ? 0x1p128L : (long double)(get(high));
    const bool up = m - below > above - m || (m - below == above - m && (low & 1));
    return sign | (up ? high : low);
  }
};

using Half3 = long double (*)(long double, long double, long double);

template <class Format>
void add_half(std::vector<Form>& f, const std::string& name, const std::string& suffix, Type one, Type two,
              int arity, Half3 g) {
  static const char* const operands[] = {"", " d, a;", " d, a, b;", " d, a, b, c;"};
  const auto half = [g](Bits a, Bits b, Bits c) {
    return Format::put(g(Format::get(a & 0xffff), Format::get(b & 0xffff), Format::get(c & 0xffff)));
  };
  f.push_back({name + "." + suffix + operands[arity], one, std::vector<Type>(size_t(arity), one),
               [=](Bits a, Bits b, Bits c, Bits) { return half(a, b, c); }});
  f.push_back(
      {name + "." + suffix + "x2" + operands[arity], two, std::vector<Type>(size_t(arity), two),
       [=](Bits a, Bits b, Bits c, Bits) { return half(a >> 16, b >> 16, c >> 16) << 16 | half(a, b, c); }});
}

template <class Format>
void all_halves(std::vector<Form>& f, const std::string& suffix, Type one, Type two) {
  add_half<Format>(f, "add", suffix, one, two, 2,
                   [](long double a, long double b, long double) { return a + b; });
  add_half<Format>(f, "add.rn", suffix, one, two, 2,
                   [](long double a, long double b, long double) { return a + b; });
  add_half<Format>(f, "sub", suffix, one, two, 2,
                   [](long double a, long double b, long double) { return a - b; });
  add_half<Format>(f, "mul", suffix, one, two, 2,
                   [](long double a, long double b, long double) { return a * b; });
  add_half<Format>(f, "neg", suffix, one, two, 1, [](long double a, long double, long double) { return -a; });
  add_half<Format>(f, "abs", suffix, one, two, 1,
                   [](long double a, long double, long double) { return std::fabs(a); });
  add_half<Format>(f, "min", suffix, one, two, 2,
                   [](long double a, long double b, long double) -> long double {
                     return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? a : b) : a < b ? a : b;
                   });
  add_half<Format>(f, "max", suffix, one, two, 2,
                   [](long double a, long double b, long double) -> long double {
                     return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? b : a) : a > b ? a : b;
                   });
}

TEST("ptxsim forms: f16 and bf16, single and in pairs") {
  std::vector<Form> f;
  all_halves<F16>(f, "f16", Type::kF16, Type::kF16x2);
  // Products of halves have 22 bits and reach 2^-48: with the addend they fit the host's 64-bit significand
  // whenever the result is finite.
  add_half<F16>(f, "fma.rn", "f16", Type::kF16, Type::kF16x2, 3,
                [](long double a, long double b, long double c) { return a * b + c; });
  check_forms(f);
}

TEST("ptxsim forms: bf16, single and in pairs") {
  std::vector<Form> f;
  all_halves<Bf16>(f, "bf16", Type::kBf16, Type::kBf16x2);
  check_forms(f);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
