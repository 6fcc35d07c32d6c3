// SPDX-License-Identifier: Apache-2.0
// cvt: between integers, floats and halves. The source register may be wider than the source type and
// the destination wider than the result, which is then sign- or zero-extended.
#include <type_traits>

#include "exec/dispatch.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

// Bits of Op::variant: rounding in 0-1; kIntegral: round to an integral value first.
constexpr int kIntegral = 4, kSaturate = 8, kFtz = 16, kRelu = 32;

double integral(double x, Round round) {
  switch (round) {
    case Round::kNearest: return std::nearbyint(x);  // ties to even in the default environment
    case Round::kZero: return std::trunc(x);
    case Round::kDown: return std::floor(x);
    case Round::kUp: return std::ceil(x);
  }
  return x;
}

// ---- integer to integer

template <class D, class S>
struct IntToInt {
  template <class Word>
  static void run(Warp& w, const Op& op, uint32_t mask, const S* a, int stride) {
    Word* d = w.reg<Word>(op.dst);
    if (op.variant & kSaturate) {
      lanes(d, mask, [=](int i) {
        const __int128 x = a[i * stride];
        const __int128 low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
        return Word(D(x < low ? low : x > high ? high : x));
      });
    } else if (stride == 1) {
      lanes(d, mask, [=](int i) { return Word(D(a[i])); });
    } else {
      lanes(d, mask, [=](int i) { return Word(D(a[i * stride])); });
    }
  }
};

// The destination register's own width, of the signedness of D.
template <class D, class S>
void int_to_int(Warp& w, const Op& op, uint32_t mask) {
  const S* a = w.reg<S>(op.src[0]);
  const int stride = int(op.imm & 0xff) / int(sizeof(S));
  switch (op.imm >> 8) {
    case 2:
      return IntToInt<D, S>::template run<std::conditional_t<std::is_signed_v<D>, int16_t, uint16_t>>(
          w, op, mask, a, stride);
    case 4:
      return IntToInt<D, S>::template run<std::conditional_t<std::is_signed_v<D>, int32_t, uint32_t>>(
          w, op, mask, a, stride);
    default:
      return IntToInt<D, S>::template run<std::conditional_t<std::is_signed_v<D>, int64_t, uint64_t>>(
          w, op, mask, a, stride);
  }
}

template <class F>
Handler by_int(Type type) {
  switch (type) {
    case Type::kU8: return F::template of<uint8_t>;
    case Type::kS8: return F::template of<int8_t>;
    case Type::kU16: return F::template of<uint16_t>;
    case Type::kS16: return F::template of<int16_t>;
    case Type::kU32: return F::template of<uint32_t>;
    case Type::kS32: return F::template of<int32_t>;
    case Type::kU64: return F::template of<uint64_t>;
    case Type::kS64: return F::template of<int64_t>;
    default: return nullptr;
  }
}
template <class S>
struct ToInt {
  template <class D>
  static constexpr Handler of = int_to_int<D, S>;
};
template <class S>
constexpr Handler int_to_int_handler(Type d) {
  return by_int<ToInt<S>>(d);
}

Handler integer_pair(Type d, Type s) {
  switch (s) {
    case Type::kU8: return int_to_int_handler<uint8_t>(d);
    case Type::kS8: return int_to_int_handler<int8_t>(d);
    case Type::kU16: return int_to_int_handler<uint16_t>(d);
    case Type::kS16: return int_to_int_handler<int16_t>(d);
    case Type::kU32: return int_to_int_handler<uint32_t>(d);
    case Type::kS32: return int_to_int_handler<int32_t>(d);
    case Type::kU64: return int_to_int_handler<uint64_t>(d);
    case Type::kS64: return int_to_int_handler<int64_t>(d);
    default: return nullptr;
  }
}

// ---- integer to float

template <class S>
float int_to_f32(S x, Round round) {
  const float nearest = float(x);
  if (round == Round::kNearest) return nearest;
  const long double exact = x;  // 64 bits of significand: exact for every integer type
  const bool down = round == Round::kDown || (round == Round::kZero && exact > 0);
  const bool up = round == Round::kUp || (round == Round::kZero && exact < 0);
  if (down && nearest > exact) return std::nextafterf(nearest, -std::numeric_limits<float>::infinity());
  if (up && nearest < exact) return std::nextafterf(nearest, std::numeric_limits<float>::infinity());
  return nearest;
}

struct IntToF32 {
  template <class S>
  static void of(Warp& w, const Op& op, uint32_t mask) {
    const S* a = w.reg<S>(op.src[0]);
    const int stride = int(op.imm & 0xff) / int(sizeof(S));
    const Round round = Round(op.variant & 3);
    if (round == Round::kNearest && stride == 1) {
      lanes(w.reg<float>(op.dst), mask, [=](int i) { return float(a[i]); });
    } else {
      lanes(w.reg<float>(op.dst), mask, [=](int i) { return int_to_f32(a[i * stride], round); });
    }
  }
};
struct IntToF64 {
  template <class S>
  static void of(Warp& w, const Op& op, uint32_t mask) {
    const S* a = w.reg<S>(op.src[0]);
    const int stride = int(op.imm & 0xff) / int(sizeof(S));
    lanes(w.reg<double>(op.dst), mask, [=](int i) { return double(a[i * stride]); });
  }
};
template <bool kBfloat>
struct IntToHalf {
  template <class S>
  static void of(Warp& w, const Op& op, uint32_t mask) {
    const S* a = w.reg<S>(op.src[0]);
    const int stride = int(op.imm & 0xff) / int(sizeof(S));
    const Round round = Round(op.variant & 3);
    lanes(w.reg<uint16_t>(op.dst), mask, [=](int i) {
      return kBfloat ? to_bfloat(double(a[i * stride]), round) : to_half(double(a[i * stride]), round);
    });
  }
};

// ---- float to anything

struct FromF16 {
  using Word = uint16_t;
  static double get(uint16_t x) { return from_half(x); }
};
struct FromBf16 {
  using Word = uint16_t;
  static double get(uint16_t x) { return from_bfloat(x); }
};
struct FromF32 {
  using Word = float;
  static double get(float x) { return x; }
};
struct FromF64 {
  using Word = double;
  static double get(double x) { return x; }
};

template <class From>
struct FloatToInt {
  template <class D>
  static void of(Warp& w, const Op& op, uint32_t mask) {
    const typename From::Word* a = w.reg<typename From::Word>(op.src[0]);
    const Round round = Round(op.variant & 3);
    const bool ftz = op.variant & kFtz;
    // Out of range saturates. NaN gives 0, but the top bit when either side has 64 bits.
    constexpr bool kWide = sizeof(D) == 8 || std::is_same_v<From, FromF64>;
    constexpr D kNan = kWide ? D(std::make_unsigned_t<D>(1) << (8 * sizeof(D) - 1)) : D(0);
    const auto convert = [=](int i) {
      double x = From::get(a[i]);
      if (ftz && std::fabs(x) < 0x1p-126) x = 0;
      x = integral(x, round);
      constexpr double kLow = double(std::numeric_limits<D>::min());
      constexpr double kEnd = 2 * double(std::make_unsigned_t<D>(std::numeric_limits<D>::max() / 2 + 1));
      return x != x      ? kNan
             : x < kLow  ? std::numeric_limits<D>::min()
             : x >= kEnd ? std::numeric_limits<D>::max()
                         : D(x);
    };
    if (op.imm >> 8 == 2)
      lanes(w.reg<uint16_t>(op.dst), mask, [=](int i) { return uint16_t(convert(i)); });
    else if (op.imm >> 8 == 4)
      lanes(w.reg<uint32_t>(op.dst), mask, [=](int i) { return uint32_t(convert(i)); });
    else
      lanes(w.reg<uint64_t>(op.dst), mask, [=](int i) { return uint64_t(convert(i)); });
  }
};

template <class From, class To>
void float_to_float(Warp& w, const Op& op, uint32_t mask) {
  const typename From::Word* a = w.reg<typename From::Word>(op.src[0]);
  const int variant = op.variant;
  const Round round = Round(variant & 3);
  lanes(w.reg<typename To::Word>(op.dst), mask, [=](int i) -> typename To::Word {
    double x = From::get(a[i]);
    if (variant & kFtz && std::fabs(x) < 0x1p-126) x = std::copysign(0.0, x);
    if (variant & kIntegral) x = integral(x, round);
    if (variant & kSaturate) x = x > 0 ? (x < 1 ? x : 1) : 0;
    if (variant & kRelu) x = x > 0 ? x : x != x ? x : 0;
    if constexpr (std::is_same_v<To, FromF16>)
      return to_half(x, round);
    else if constexpr (std::is_same_v<To, FromBf16>)
      return to_bfloat(x, round);
    else if constexpr (std::is_same_v<To, FromF32>) {
      const float r = canonical(std::is_same_v<From, FromF64> ? round_to_float(x, round) : float(x));
      return (variant & kFtz) ? flush(r) : r;
    } else
      return x;
  });
}

void half_to_f32(Warp& w, const Op& op, uint32_t mask) {
  unary_op<float, uint16_t>(w, op, mask, [](uint16_t x) { return canonical(from_half(x)); });
}

// Two floats to a pair of halves; the first operand becomes the high one.
template <bool kBfloat>
void pack_halves(Warp& w, const Op& op, uint32_t mask) {
  const int variant = op.variant;
  const Round round = Round(variant & 3);
  binary_op<uint32_t, float, float>(w, op, mask, [=](float high, float low) {
    if (variant & kRelu) high = high < 0 ? 0 : high, low = low < 0 ? 0 : low;
    return kBfloat ? uint32_t(to_bfloat(high, round)) << 16 | to_bfloat(low, round)
                   : uint32_t(to_half(high, round)) << 16 | to_half(low, round);
  });
}

// To the nearest tf32, ties away from zero: 10 fraction bits in the place of a float's.
void to_tf32(Warp& w, const Op& op, uint32_t mask) {
  unary_op<uint32_t, uint32_t>(w, op, mask, [](uint32_t x) {
    if ((x & 0x7fffffff) > 0x7f800000) return kNanF32;
    if ((x & 0x7f800000) == 0x7f800000) return x;
    return (x + 0x1000) & ~0x1fffu;
  });
}

template <class From>
Handler from_float(Type d) {
  switch (d) {
    case Type::kF16: return float_to_float<From, FromF16>;
    case Type::kBf16: return float_to_float<From, FromBf16>;
    case Type::kF32: return float_to_float<From, FromF32>;
    case Type::kF64: return float_to_float<From, FromF64>;
    default: return by_int<FloatToInt<From>>(d);
  }
}

struct RoundName {
  const char* name;
  Round round;
  bool integral;
};
constexpr RoundName kRounds[] = {{"rn", Round::kNearest, false}, {"rz", Round::kZero, false},
                                 {"rm", Round::kDown, false},    {"rp", Round::kUp, false},
                                 {"rni", Round::kNearest, true}, {"rzi", Round::kZero, true},
                                 {"rmi", Round::kDown, true},    {"rpi", Round::kUp, true}};

void decode_cvt(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const RoundName* round = nullptr;
  for (const RoundName& r : kRounds)
    if (!round && m.accept(r.name)) round = &r;
  const bool away = !round && m.accept("rna");
  const bool relu = m.accept("relu"), ftz = m.accept("ftz"), saturate = m.accept("sat");
  op.variant = uint8_t((round ? int(round->round) : 0) | (round && round->integral ? kIntegral : 0) |
                       (saturate ? kSaturate : 0) | (ftz ? kFtz : 0) | (relu ? kRelu : 0));
  if (away) {
    m.expect("tf32");
    m.expect("f32");
    m.end();
    d.operands(i, 2);
    op.dst = d.destination(i.operands[0], Type::kB32);
    op.src[0] = d.source(i.operands[1], Type::kF32);
    op.run = to_tf32;
    return;
  }
  const Type to = m.type(), from = m.type();
  m.end();
  const bool to_float = is_float(to), of_float = is_float(from);
  if (to == Type::kF16x2 || to == Type::kBf16x2) {
    if (from != Type::kF32 || !round || round->integral || ftz || saturate)
      d.fail("a pair is made of two .f32 with .rn or .rz");
    d.operands(i, 3);
    op.dst = d.destination(i.operands[0], to);
    op.src[0] = d.source(i.operands[1], from);
    op.src[1] = d.source(i.operands[2], from);
    op.run = to == Type::kF16x2 ? pack_halves<false> : pack_halves<true>;
    return;
  }
  d.operands(i, 2);
  const bool wider = !to_float;
  op.dst = d.destination(i.operands[0], to, wider);
  op.src[0] = d.source(i.operands[1], from, !of_float);
  const int from_bytes =
      d.register_bytes(i.operands[1]) ? d.register_bytes(i.operands[1]) : std::max(2, type_bytes(from));
  const int to_bytes =
      d.register_bytes(i.operands[0]) ? d.register_bytes(i.operands[0]) : std::max(2, type_bytes(to));
  op.imm = from_bytes | to_bytes << 8;
  if (relu && to != Type::kF16 && to != Type::kBf16) d.fail(".relu is for halves");
  if (!of_float) {
    if (ftz || relu || (to_float && saturate)) d.fail("a modifier that this conversion does not have");
    if (to_float && (!round || round->integral)) d.fail("integer to float needs .rn, .rz, .rm or .rp");
    if (!to_float && round) d.fail("integer to integer has no rounding");
    if (!to_float) op.run = integer_pair(to, from);
    if (to == Type::kF32) op.run = by_int<IntToF32>(from);
    if (to == Type::kF64 && round->round == Round::kNearest) op.run = by_int<IntToF64>(from);
    if (to == Type::kF16 && type_bytes(from) <= 4) op.run = by_int<IntToHalf<false>>(from);
    if (to == Type::kBf16 && type_bytes(from) <= 4) op.run = by_int<IntToHalf<true>>(from);
  } else {
    if (!to_float && (!round || !round->integral)) d.fail("float to integer needs .rni, .rzi, .rmi or .rpi");
    const bool narrows = to_float && type_bytes(to) < type_bytes(from);
    if (narrows && (!round || round->integral)) d.fail("a narrowing conversion needs .rn, .rz, .rm or .rp");
    if (to_float && !narrows && round && !round->integral) d.fail("an exact conversion has no rounding");
    if (to_float && to != from && type_bytes(to) == type_bytes(from))
      d.fail("no conversion between the two half formats");
    switch (from) {
      case Type::kF16:
        op.run = to == Type::kF32 && op.variant == 0 ? half_to_f32 : from_float<FromF16>(to);
        break;
      case Type::kBf16: op.run = from_float<FromBf16>(to); break;
      case Type::kF32: op.run = from_float<FromF32>(to); break;
      case Type::kF64: op.run = from_float<FromF64>(to); break;
      default: break;
    }
  }
  if (!op.run) d.fail("this conversion is not known");
}

}  // namespace

void add_convert(Opcodes& all) { all["cvt"] = decode_cvt; }

}  // namespace maestrale::ptxsim
