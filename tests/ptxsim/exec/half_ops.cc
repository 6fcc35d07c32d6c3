// SPDX-License-Identifier: Apache-2.0
// Arithmetic in half and bfloat16, single (.f16, .bf16) and in pairs (.f16x2, .bf16x2). Every operation
// is done exactly in double and rounded once.
#include "exec/approx.h"
#include "exec/dispatch.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

struct F16 {
  static double get(uint16_t h) { return from_half(h); }
  static uint16_t put(double x) { return to_half(x); }
};
struct Bf16 {
  static double get(uint16_t h) { return from_bfloat(h); }
  static uint16_t put(double x) { return to_bfloat(x); }
};

// clang-format off
struct Add { static double of(double a, double b, double) { return add_to_odd(a, b); } };
struct Sub { static double of(double a, double b, double) { return add_to_odd(a, -b); } };
struct Mul { static double of(double a, double b, double) { return a * b; } };
struct Fma { static double of(double a, double b, double c) { return add_to_odd(a * b, c); } };
struct Neg { static double of(double a, double, double) { return -a; } };
struct Abs { static double of(double a, double, double) { return std::fabs(a); } };
struct Min { static double of(double a, double b, double) {
  return a != a ? b : b != b ? a : a < b || (a == b && std::signbit(a)) ? a : b; } };
struct Max { static double of(double a, double b, double) {
  return a != a ? b : b != b ? a : a > b || (a == b && !std::signbit(a)) ? a : b; } };
struct Exp2 { static double of(double a, double, double) { return approx_value(Approx::kExp2, a, a); } };
struct Tanh { static double of(double a, double, double) { return approx_value(Approx::kTanh, a, a); } };
// clang-format on

constexpr int kFtz = 1, kSaturate = 2, kRelu = 4, kPropagateNan = 8;

template <class Format, class F, class Word>
void half_op(Warp& w, const Op& op, uint32_t mask) {
  const Word* s[3];
  for (int k = 0; k < 3; ++k) s[k] = w.reg<Word>(op.src[k] == kNoSlot ? op.src[0] : op.src[k]);
  const int flags = op.variant;
  const auto flushed = [flags](double x) {
    return (flags & kFtz) && std::fabs(x) < 0x1p-14 ? std::copysign(0.0, x) : x;
  };
  lanes(w.reg<Word>(op.dst), mask, [=](int i) {
    uint32_t word = 0;
    for (int half = 0; half < int(sizeof(Word)) / 2; ++half) {
      double x[3];
      bool nan = false;
      for (int k = 0; k < 3; ++k) {
        x[k] = flushed(Format::get(uint16_t(s[k][i] >> (16 * half))));
        nan |= x[k] != x[k];
      }
      double r = F::of(x[0], x[1], x[2]);
      if ((flags & kPropagateNan) && nan) r = std::numeric_limits<double>::quiet_NaN();
      if (flags & kSaturate) r = r > 0 ? (r < 1 ? r : 1) : 0;
      if ((flags & kRelu) && r < 0) r = 0;
      word |= uint32_t(Format::put(flushed(Format::get(Format::put(r))))) << (16 * half);
    }
    return Word(word);
  });
}

template <class F>
Handler handler(Type type) {
  switch (type) {
    case Type::kF16: return half_op<F16, F, uint16_t>;
    case Type::kBf16: return half_op<Bf16, F, uint16_t>;
    case Type::kF16x2: return half_op<F16, F, uint32_t>;
    default: return half_op<Bf16, F, uint32_t>;
  }
}

}  // namespace

bool decode_half(Decoder& d, const Instruction& i, Op& op) {
  const auto last = i.modifiers.empty() ? std::nullopt : type_named(i.modifiers.back());
  if (!last || !is_float(*last) || *last == Type::kF32 || *last == Type::kF64) return false;
  struct Known {
    Handler (*handler)(Type);
    int arity;
  };
  static const std::map<std::string, Known, std::less<>> known = {
      {"add", {handler<Add>, 2}},  {"sub", {handler<Sub>, 2}}, {"mul", {handler<Mul>, 2}},
      {"fma", {handler<Fma>, 3}},  {"neg", {handler<Neg>, 1}}, {"abs", {handler<Abs>, 1}},
      {"min", {handler<Min>, 2}},  {"max", {handler<Max>, 2}}, {"ex2", {handler<Exp2>, 1}},
      {"tanh", {handler<Tanh>, 1}}};
  const auto found = known.find(i.opcode);
  if (found == known.end()) d.fail("'" + i.opcode + "' has no half precision form");
  const bool extremum = i.opcode == "min" || i.opcode == "max";
  const bool function = i.opcode == "ex2" || i.opcode == "tanh";
  const bool arithmetic = found->second.arity >= 2 && !extremum;
  Modifiers m(i);
  if (function) m.expect("approx");
  if (arithmetic && !m.accept("rn") && i.opcode == "fma") m.unknown();
  int flags = 0;
  if (m.accept("ftz")) flags |= kFtz;
  if (extremum && m.accept("NaN")) flags |= kPropagateNan;
  if (arithmetic && m.accept("sat")) flags |= kSaturate;
  if (i.opcode == "fma" && m.accept("relu")) flags |= kRelu;
  const Type type = m.type();
  m.end();
  if ((flags & kFtz) && (type == Type::kBf16 || type == Type::kBf16x2) && !function)
    d.fail(".ftz does not exist for bfloat16");
  d.operands(i, size_t(found->second.arity) + 1);
  op.dst = d.destination(i.operands[0], type);
  for (int k = 0; k < found->second.arity; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], type);
  op.variant = uint8_t(flags);
  op.run = found->second.handler(type);
  return true;
}

}  // namespace maestrale::ptxsim
