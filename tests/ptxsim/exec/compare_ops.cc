// SPDX-License-Identifier: Apache-2.0
// Comparison and selection: setp, set, selp, slct. A comparison yields a lane mask; the unordered
// forms (ltu, equ, ...) are the complements of the opposite ordered ones.
#include "exec/dispatch.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

enum class Compare : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kNum };

struct HalfValue {
  uint16_t bits;
  operator float() const { return from_half(bits); }
};
struct BfloatValue {
  uint16_t bits;
  operator float() const { return from_bfloat(bits); }
};

template <class T>
inline bool holds(Compare c, T a, T b) {
  switch (c) {
    case Compare::kEq: return a == b;
    case Compare::kNe: return (a < b) | (a > b);  // false for NaN; the same as != on integers
    case Compare::kLt: return a < b;
    case Compare::kLe: return a <= b;
    case Compare::kGt: return a > b;
    case Compare::kGe: return a >= b;
    case Compare::kNum: return (a == a) & (b == b);
  }
  return false;
}

using Comparison = uint32_t (*)(const Warp&, uint32_t a, uint32_t b, bool ftz);

template <class T, Compare c>
uint32_t compare(const Warp& w, uint32_t a_slot, uint32_t b_slot, bool ftz) {
  const T* a = w.reg<T>(a_slot);
  const T* b = w.reg<T>(b_slot);
  if constexpr (std::is_same_v<T, float>) {
    if (ftz) return ballot([=](int i) { return holds<float>(c, flush(a[i]), flush(b[i])); });
  }
  if constexpr (std::is_same_v<T, HalfValue> || std::is_same_v<T, BfloatValue>)
    return ballot([=](int i) { return holds<float>(c, a[i], b[i]); });
  else
    return ballot([=](int i) { return holds<T>(c, a[i], b[i]); });
}

template <class T>
Comparison comparison(Compare c) {
  switch (c) {
    case Compare::kEq: return compare<T, Compare::kEq>;
    case Compare::kNe: return compare<T, Compare::kNe>;
    case Compare::kLt: return compare<T, Compare::kLt>;
    case Compare::kLe: return compare<T, Compare::kLe>;
    case Compare::kGt: return compare<T, Compare::kGt>;
    case Compare::kGe: return compare<T, Compare::kGe>;
    case Compare::kNum: return compare<T, Compare::kNum>;
  }
  return nullptr;
}

Comparison comparison(Type type, Compare c) {
  switch (type) {
    case Type::kB16:
    case Type::kU16: return comparison<uint16_t>(c);
    case Type::kS16: return comparison<int16_t>(c);
    case Type::kB32:
    case Type::kU32: return comparison<uint32_t>(c);
    case Type::kS32: return comparison<int32_t>(c);
    case Type::kB64:
    case Type::kU64: return comparison<uint64_t>(c);
    case Type::kS64: return comparison<int64_t>(c);
    case Type::kF32: return comparison<float>(c);
    case Type::kF64: return comparison<double>(c);
    case Type::kF16: return comparison<HalfValue>(c);
    case Type::kBf16: return comparison<BfloatValue>(c);
    default: return nullptr;
  }
}

struct Parsed {
  Compare compare;
  bool complement;
};

Parsed parse_comparison(Decoder& d, const std::string& name, Type type) {
  static const std::map<std::string, Parsed, std::less<>> any = {
      {"eq", {Compare::kEq, false}}, {"ne", {Compare::kNe, false}}, {"lt", {Compare::kLt, false}},
      {"le", {Compare::kLe, false}}, {"gt", {Compare::kGt, false}}, {"ge", {Compare::kGe, false}}};
  static const std::map<std::string, Parsed, std::less<>> of_unsigned = {{"lo", {Compare::kLt, false}},
                                                                         {"ls", {Compare::kLe, false}},
                                                                         {"hi", {Compare::kGt, false}},
                                                                         {"hs", {Compare::kGe, false}}};
  static const std::map<std::string, Parsed, std::less<>> of_floats = {
      {"equ", {Compare::kNe, true}},   {"neu", {Compare::kEq, true}}, {"ltu", {Compare::kGe, true}},
      {"leu", {Compare::kGt, true}},   {"gtu", {Compare::kLe, true}}, {"geu", {Compare::kLt, true}},
      {"num", {Compare::kNum, false}}, {"nan", {Compare::kNum, true}}};
  const bool bits = type == Type::kB16 || type == Type::kB32 || type == Type::kB64;
  if (const auto f = any.find(name); f != any.end() && (!bits || name == "eq" || name == "ne"))
    return f->second;
  if (const auto f = of_unsigned.find(name);
      f != of_unsigned.end() && !is_float(type) && !is_signed(type) && !bits)
    return f->second;
  if (const auto f = of_floats.find(name); f != of_floats.end() && is_float(type)) return f->second;
  d.fail("unknown comparison '." + name + "' for this type");
}

// Bits of Op::variant: how the result joins the third operand, and the complement.
constexpr int kAnd = 1, kOr = 2, kXor = 3, kJoin = 3, kComplement = 4, kFtz = 8, kNegateJoined = 16;

uint32_t evaluate(const Warp& w, const Op& op) {
  const auto f = reinterpret_cast<Comparison>(op.imm);
  return f(w, op.src[0], op.src[1], op.variant & kFtz) ^ ((op.variant & kComplement) ? kAllLanes : 0);
}

uint32_t join(const Warp& w, const Op& op, uint32_t value) {
  if ((op.variant & kJoin) == 0) return value;
  const uint32_t other = w.pred(op.src[2]) ^ ((op.variant & kNegateJoined) ? kAllLanes : 0);
  switch (op.variant & kJoin) {
    case kAnd: return value & other;
    case kOr: return value | other;
    default: return value ^ other;
  }
}

void setp(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t value = evaluate(w, op);
  const uint32_t first = join(w, op, value), second = join(w, op, ~value);
  set_pred(w.pred(op.dst), mask, first);
  if (op.dst2 != kNoSlot) set_pred(w.pred(op.dst2), mask, second);
}

template <class D>
void set_value(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t value = join(w, op, evaluate(w, op));
  const D on = D(op.src[3]);  // the bits of "true"
  lanes(w.reg<D>(op.dst), mask, [=](int i) { return (value >> i & 1) ? on : D(0); });
}

// {.ftz} and {.and|.or|.xor}, the operands from `first` on, the third one included.
void decode_comparison(Decoder& d, const Instruction& i, Op& op, const std::string& name, bool ftz,
                       int joined, Type type) {
  const Parsed parsed = parse_comparison(d, name, type);
  const Comparison f = comparison(type, parsed.compare);
  if (!f || (ftz && type != Type::kF32)) d.fail("not a type of '" + i.opcode + "'");
  d.operands(i, joined ? 4 : 3);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], type);
  if (joined) op.src[2] = d.predicate(i.operands[3]);
  op.imm = reinterpret_cast<int64_t>(f);
  op.variant = uint8_t(joined | (parsed.complement ? kComplement : 0) | (ftz ? kFtz : 0) |
                       (joined && i.operands[3].negated ? kNegateJoined : 0));
}

int joined_by(Modifiers& m) {
  return m.accept("and") ? kAnd : m.accept("or") ? kOr : m.accept("xor") ? kXor : 0;
}

void decode_setp(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const std::string name = m.take();
  const bool ftz = m.accept("ftz");
  const int joined = joined_by(m);
  const bool ftz_behind = !ftz && m.accept("ftz");  // both orders are found in the wild
  const Type type = m.type();
  m.end();
  decode_comparison(d, i, op, name, ftz || ftz_behind, joined, type);
  op.dst = d.predicate(i.operands[0]);
  if (i.operands[0].second >= 0) op.dst2 = d.predicate_register(i.operands[0].second);
  op.run = setp;
}

void decode_set(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const std::string name = m.take();
  const int joined = joined_by(m);
  const bool ftz = m.accept("ftz");
  const Type result = m.type(), type = m.type();
  m.end();
  decode_comparison(d, i, op, name, ftz, joined, type);
  op.dst = d.destination(i.operands[0], result);
  switch (result) {
    case Type::kU32:
    case Type::kS32: op.src[3] = 0xffffffffu, op.run = set_value<uint32_t>; break;
    case Type::kF32: op.src[3] = 0x3f800000u, op.run = set_value<uint32_t>; break;
    case Type::kU16:
    case Type::kS16: op.src[3] = 0xffffu, op.run = set_value<uint16_t>; break;
    case Type::kF16: op.src[3] = 0x3c00u, op.run = set_value<uint16_t>; break;
    case Type::kBf16: op.src[3] = 0x3f80u, op.run = set_value<uint16_t>; break;
    default: d.fail("not a result type of 'set'");
  }
}

struct Select {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    const T* a = w.reg<T>(op.src[0]);
    const T* b = w.reg<T>(op.src[1]);
    const uint32_t p = w.pred(op.src[2]) ^ (op.variant ? kAllLanes : 0);
    lanes(w.reg<T>(op.dst), mask, [=](int i) { return (p >> i & 1) ? a[i] : b[i]; });
  }
};

void decode_selp(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  d.operands(i, 4);
  op.run = bits_handler<Select>(type_bytes(type));
  if (!op.run) d.fail("not a type of 'selp'");
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], type);
  op.src[2] = d.predicate(i.operands[3]);
  op.variant = i.operands[3].negated;
}

struct SelectBySign {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    const T* a = w.reg<T>(op.src[0]);
    const T* b = w.reg<T>(op.src[1]);
    const int32_t* c = w.reg<int32_t>(op.src[2]);
    const float* f = w.reg<float>(op.src[2]);
    const bool floats = op.variant;
    lanes(w.reg<T>(op.dst), mask, [=](int i) { return (floats ? f[i] >= 0 : c[i] >= 0) ? a[i] : b[i]; });
  }
};

void decode_slct(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type(), by = m.type();
  m.end();
  d.operands(i, 4);
  op.run = bits_handler<SelectBySign>(type_bytes(type));
  if (!op.run || (by != Type::kS32 && by != Type::kF32)) d.fail("not a type of 'slct'");
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], type);
  op.src[2] = d.source(i.operands[3], by);
  op.variant = by == Type::kF32;
}

}  // namespace

void add_compare(Opcodes& all) {
  all["setp"] = decode_setp;
  all["set"] = decode_set;
  all["selp"] = decode_selp;
  all["slct"] = decode_slct;
}

}  // namespace maestrale::ptxsim
