// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic: add sub mul mad div rem min max abs neg, dp4a, sad, add/sub with carry.
#include <type_traits>

#include "exec/cta.h"
#include "exec/decoder.h"
#include "exec/dispatch.h"

namespace maestrale::ptxsim {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
// Twice as wide, of the same signedness.
template <class T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

// clang-format off
struct Add { template <class T> T operator()(T a, T b) const { return T(Unsigned<T>(a) + Unsigned<T>(b)); } };
struct Sub { template <class T> T operator()(T a, T b) const { return T(Unsigned<T>(a) - Unsigned<T>(b)); } };
// 16-bit factors are widened first: promoted to int, their product could overflow.
struct MulLo { template <class T> T operator()(T a, T b) const { return T(uint64_t(a) * uint64_t(b)); } };
struct MulHi { template <class T> T operator()(T a, T b) const { return T((Wide<T>(a) * Wide<T>(b)) >> (8 * sizeof(T))); } };
struct MulWide { template <class T> Wide<T> operator()(T a, T b) const { return Wide<T>(Wide<T>(a) * Wide<T>(b)); } };
struct Min { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Max { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
// The result of a division by zero is the machine's own; GPUs of today give all ones, and the dividend as remainder.
struct Div { template <class T> T operator()(T a, T b) const {
  if (b == 0) return T(-1);
  if (std::is_signed_v<T> && b == T(-1)) return T(Unsigned<T>(0) - Unsigned<T>(a));
  return T(a / b); } };
struct Rem { template <class T> T operator()(T a, T b) const {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == T(-1)) return 0;
  return T(a % b); } };
struct Neg { template <class T> T operator()(T a) const { return T(Unsigned<T>(0) - Unsigned<T>(a)); } };
struct Abs { template <class T> T operator()(T a) const { return a < 0 ? Neg()(a) : a; } };
struct SatAdd { int32_t operator()(int32_t a, int32_t b) const {
  const int64_t s = int64_t(a) + b; return int32_t(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s); } };
struct SatSub { int32_t operator()(int32_t a, int32_t b) const {
  const int64_t s = int64_t(a) - b; return int32_t(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s); } };
struct Sad { template <class T> T operator()(T a, T b, T c) const {
  return T(Unsigned<T>(c) + (a < b ? Unsigned<T>(b) - Unsigned<T>(a) : Unsigned<T>(a) - Unsigned<T>(b))); } };
template <class M> struct MadOf { template <class T> auto operator()(T a, T b, decltype(M()(T(), T())) c) const {
  return Add()(M()(a, b), c); } };
// clang-format on

template <class F>
struct Binary {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    binary_op<decltype(F()(T(), T())), T, T>(w, op, mask, F());
  }
};
template <class F>
struct Unary {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    unary_op<T, T>(w, op, mask, F());
  }
};
template <class F>
struct Ternary {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    using D = decltype(F()(T(), T(), {}));
    ternary_op<D, T, T, D>(w, op, mask, F());
  }
};

Type integer_type(Decoder& d, Modifiers& m, bool sixteen = true) {
  const Type type = m.type();
  if (is_float(type) || type == Type::kPred || type_bytes(type) < (sixteen ? 2 : 4))
    d.fail("not a type of this instruction");
  if (type == Type::kB16 || type == Type::kB32 || type == Type::kB64) d.fail("an untyped operand here");
  return type;
}

Type widened(Type t) {
  switch (t) {
    case Type::kU16: return Type::kU32;
    case Type::kS16: return Type::kS32;
    case Type::kU32: return Type::kU64;
    default: return Type::kS64;
  }
}

void set_operands(Decoder& d, const Instruction& i, Op& op, Type type, Type result, int sources) {
  d.operands(i, size_t(sources) + 1);
  op.dst = d.destination(i.operands[0], result);
  for (int k = 0; k < sources; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], k == 2 ? result : type);
}

template <class F>
void decode_binary(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = integer_type(d, m);
  m.end();
  op.run = integer_handler<Binary<F>>(type);
  set_operands(d, i, op, type, type, 2);
}

template <class F>
void decode_unary(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = integer_type(d, m);
  m.end();
  if (!is_signed(type)) d.fail("needs a signed type");
  op.run = integer_handler<Unary<F>>(type);
  set_operands(d, i, op, type, type, 1);
}

// ---- carry chains: the carry bit of a lane lives in a predicate-like slot behind the warp's registers

void carry_op(Warp& w, const Op& op, uint32_t mask) {
  // variant: 1 = subtract, 2 = takes a carry in, 4 = gives a carry out
  const uint32_t* a = w.reg<uint32_t>(op.src[0]);
  const uint32_t* b = w.reg<uint32_t>(op.src[1]);
  uint32_t* out = w.reg<uint32_t>(op.dst);
  uint32_t& carry = w.pred(op.src[3]);
  each_lane(mask, [&](int i) {
    const uint64_t in = (op.variant & 2) ? carry >> i & 1 : 0;
    const uint64_t sum = (op.variant & 1) ? uint64_t(a[i]) - b[i] - in : uint64_t(a[i]) + b[i] + in;
    out[i] = uint32_t(sum);
    if (op.variant & 4) set_pred(carry, 1u << i, (sum >> 32 & 1) ? kAllLanes : 0);
  });
}

void decode_carry(Decoder& d, const Instruction& i, Op& op, int variant) {
  Modifiers m(i);
  if (m.accept("cc")) variant |= 4;
  const Type type = m.type();
  m.end();
  if (type != Type::kU32 && type != Type::kS32) d.fail("carry chains are known for 32 bits only");
  set_operands(d, i, op, type, type, 2);
  op.variant = uint8_t(variant);
  op.src[3] = d.carry_slot();
  op.run = carry_op;
}

template <class F, class Saturating, int kVariant>
void decode_add(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  if (m.peek() == "cc") return decode_carry(d, i, op, kVariant);
  const bool saturate = m.accept("sat");
  const Type type = integer_type(d, m);
  m.end();
  op.run = integer_handler<Binary<F>>(type);
  if (saturate) {
    if (type != Type::kS32) d.fail(".sat is for .s32");
    op.run = Binary<Saturating>::template run<int32_t>;
  }
  set_operands(d, i, op, type, type, 2);
}

void decode_addc(Decoder& d, const Instruction& i, Op& op) { decode_carry(d, i, op, 2); }
void decode_subc(Decoder& d, const Instruction& i, Op& op) { decode_carry(d, i, op, 3); }

void decode_mul(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const std::string part = m.take();
  const Type type = integer_type(d, m);
  m.end();
  if (part == "lo") {
    op.run = integer_handler<Binary<MulLo>>(type);
  } else if (part == "hi") {
    op.run = integer_handler<Binary<MulHi>>(type);
  } else if (part == "wide" && type_bytes(type) <= 4) {
    op.run = narrow_handler<Binary<MulWide>>(type);
  } else {
    d.fail("unknown modifier '." + part + "' in 'mul'");
  }
  set_operands(d, i, op, type, part == "wide" ? widened(type) : type, 2);
}

void decode_mad(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const std::string part = m.take();
  const Type type = integer_type(d, m);
  m.end();
  if (part == "lo") {
    op.run = integer_handler<Ternary<MadOf<MulLo>>>(type);
  } else if (part == "hi") {
    op.run = integer_handler<Ternary<MadOf<MulHi>>>(type);
  } else if (part == "wide" && type_bytes(type) <= 4) {
    op.run = narrow_handler<Ternary<MadOf<MulWide>>>(type);
  } else {
    d.fail("unknown modifier '." + part + "' in 'mad'");
  }
  set_operands(d, i, op, type, part == "wide" ? widened(type) : type, 3);
}

void decode_sad(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = integer_type(d, m);
  m.end();
  op.run = integer_handler<Ternary<Sad>>(type);
  set_operands(d, i, op, type, type, 3);
}

// ---- dp4a: four byte products added to a 32-bit accumulator

template <class A, class B>
void dp4a(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* a = w.reg<uint32_t>(op.src[0]);
  const uint32_t* b = w.reg<uint32_t>(op.src[1]);
  const uint32_t* c = w.reg<uint32_t>(op.src[2]);
  lanes(w.reg<uint32_t>(op.dst), mask, [=](int i) {
    uint32_t sum = c[i];
    for (int k = 0; k < 4; ++k) sum += uint32_t(int32_t(A(a[i] >> (8 * k))) * int32_t(B(b[i] >> (8 * k))));
    return sum;
  });
  w.cta->counters->dp4a += uint64_t(__builtin_popcount(mask));
}

template <class A, class B, bool kHigh>
void dp2a(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* a = w.reg<uint32_t>(op.src[0]);
  const uint32_t* b = w.reg<uint32_t>(op.src[1]);
  const uint32_t* c = w.reg<uint32_t>(op.src[2]);
  lanes(w.reg<uint32_t>(op.dst), mask, [=](int i) {
    uint32_t sum = c[i];
    for (int k = 0; k < 2; ++k)
      sum += uint32_t(int32_t(A(a[i] >> (16 * k))) * int32_t(B(b[i] >> (8 * k + (kHigh ? 16 : 0)))));
    return sum;
  });
}

void decode_dot(Decoder& d, const Instruction& i, Op& op) {
  const bool two = i.opcode == "dp2a";
  Modifiers m(i);
  bool high = false;
  if (two && !m.accept("lo")) m.expect("hi"), high = true;
  const Type a = m.type(), b = m.type();
  m.end();
  for (const Type t : {a, b})
    if (t != Type::kU32 && t != Type::kS32) d.fail("the byte dot products take .u32 and .s32");
  const bool sa = a == Type::kS32, sb = b == Type::kS32;
  if (!two) {
    op.run = sa   ? sb ? dp4a<int8_t, int8_t> : dp4a<int8_t, uint8_t>
               : sb ? dp4a<uint8_t, int8_t>
                  : dp4a<uint8_t, uint8_t>;
  } else if (high) {
    op.run = sa   ? sb ? dp2a<int16_t, int8_t, true> : dp2a<int16_t, uint8_t, true>
               : sb ? dp2a<uint16_t, int8_t, true>
                  : dp2a<uint16_t, uint8_t, true>;
  } else {
    op.run = sa   ? sb ? dp2a<int16_t, int8_t, false> : dp2a<int16_t, uint8_t, false>
               : sb ? dp2a<uint16_t, int8_t, false>
                  : dp2a<uint16_t, uint8_t, false>;
  }
  d.operands(i, 4);
  op.dst = d.destination(i.operands[0], Type::kB32);
  for (int k = 0; k < 3; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], Type::kB32);
}

// `add`, `mul` and their like exist for integers and floats: the last modifier tells which.
template <Decode kInteger, Decode kFloating>
void by_type(Decoder& d, const Instruction& i, Op& op) {
  const auto type = i.modifiers.empty() ? std::nullopt : type_named(i.modifiers.back());
  return type && is_float(*type) ? kFloating(d, i, op) : kInteger(d, i, op);
}

}  // namespace

void add_integer(Opcodes& all) {
  all["add"] = by_type<decode_add<Add, SatAdd, 0>, decode_float_add>;
  all["sub"] = by_type<decode_add<Sub, SatSub, 1>, decode_float_sub>;
  all["mul"] = by_type<decode_mul, decode_float_mul>;
  all["div"] = by_type<decode_binary<Div>, decode_float_div>;
  all["min"] = by_type<decode_binary<Min>, decode_float_min>;
  all["max"] = by_type<decode_binary<Max>, decode_float_max>;
  all["neg"] = by_type<decode_unary<Neg>, decode_float_neg>;
  all["abs"] = by_type<decode_unary<Abs>, decode_float_abs>;
  all["mad"] = by_type<decode_mad, decode_float_fma>;
  all["rem"] = decode_binary<Rem>;
  all["sad"] = decode_sad;
  all["addc"] = decode_addc;
  all["subc"] = decode_subc;
  all["dp4a"] = all["dp2a"] = decode_dot;
}

}  // namespace maestrale::ptxsim
