// SPDX-License-Identifier: Apache-2.0
// Bit operations: and or xor not shl shr shf lop3 prmt bfe bfi bfind brev clz popc cnot.
#include <type_traits>

#include "exec/dispatch.h"

namespace maestrale::ptxsim {
namespace {

// clang-format off
struct And { template <class T> T operator()(T a, T b) const { return a & b; } };
struct Or { template <class T> T operator()(T a, T b) const { return a | b; } };
struct Xor { template <class T> T operator()(T a, T b) const { return a ^ b; } };
struct Not { template <class T> T operator()(T a) const { return T(~a); } };
struct Cnot { template <class T> T operator()(T a) const { return a == 0 ? 1 : 0; } };
// Shift counts are clamped to the width.
struct Shl { template <class T> T operator()(T a, uint32_t n) const { return n >= 8 * sizeof(T) ? T(0) : T(a << n); } };
struct Shr { template <class T> T operator()(T a, uint32_t n) const {
  constexpr uint32_t kWidth = 8 * sizeof(T);
  return n >= kWidth ? T(a < 0 ? -1 : 0) : T(a >> n); } };
// clang-format on

template <class F>
struct BitBinary {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    binary_op<T, T, T>(w, op, mask, F());
  }
};
template <class F>
struct BitUnary {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    unary_op<T, T>(w, op, mask, F());
  }
};
template <class F>
struct Shift {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    binary_op<T, T, uint32_t>(w, op, mask, F());
  }
};

template <class F>
void predicate_binary(Warp& w, const Op& op, uint32_t mask) {
  set_pred(w.pred(op.dst), mask, F()(w.pred(op.src[0]), w.pred(op.src[1])));
}
void predicate_not(Warp& w, const Op& op, uint32_t mask) {
  set_pred(w.pred(op.dst), mask, ~w.pred(op.src[0]));
}

Type bit_type(Decoder& d, Modifiers& m) {
  const Type type = m.type();
  m.end();
  if (type != Type::kPred && type != Type::kB16 && type != Type::kB32 && type != Type::kB64)
    d.fail("bit operations take .pred, .b16, .b32 or .b64");
  return type;
}

template <class F>
void decode_bits(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = bit_type(d, m);
  d.operands(i, 3);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], type);
  op.run = type == Type::kPred ? predicate_binary<F> : bits_handler<BitBinary<F>>(type_bytes(type));
}

void decode_not(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = bit_type(d, m);
  d.operands(i, 2);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.run = type == Type::kPred ? predicate_not : bits_handler<BitUnary<Not>>(type_bytes(type));
}

void decode_cnot(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = bit_type(d, m);
  d.operands(i, 2);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  if (type == Type::kPred) d.fail("cnot takes no predicates");
  op.run = bits_handler<BitUnary<Cnot>>(type_bytes(type));
}

void decode_shift(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  d.operands(i, 3);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], Type::kU32);
  const int bytes = type_bytes(type);
  if (is_float(type) || bytes < 2 || (i.opcode == "shl" && (is_signed(type) || type == Type::kU32)))
    d.fail("not a type of '" + i.opcode + "'");
  if (i.opcode == "shl") {
    op.run = bits_handler<Shift<Shl>>(bytes);
  } else {
    op.run = is_signed(type) ? integer_handler<Shift<Shr>>(type) : bits_handler<Shift<Shr>>(bytes);
  }
}

// ---- funnel shift

template <bool kLeft, bool kClamp>
void funnel(Warp& w, const Op& op, uint32_t mask) {
  ternary_op<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, op, mask, [](uint32_t low, uint32_t high, uint32_t count) {
        const uint32_t n = kClamp ? (count < 32 ? count : 32) : count & 31;
        const uint64_t both = uint64_t(high) << 32 | low;
        return kLeft ? uint32_t((both << n) >> 32) : uint32_t(both >> n);
      });
}

void decode_funnel(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const bool left = m.accept("l");
  if (!left) m.expect("r");
  const bool clamp = m.accept("clamp");
  if (!clamp) m.expect("wrap");
  m.expect("b32");
  m.end();
  d.operands(i, 4);
  op.dst = d.destination(i.operands[0], Type::kB32);
  for (int k = 0; k < 3; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], Type::kB32);
  op.run = left    ? clamp ? funnel<true, true> : funnel<true, false>
              : clamp ? funnel<false, true>
                   : funnel<false, false>;
}

// ---- lop3: any function of three bits, as a table of eight

void lop3(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* a = w.reg<uint32_t>(op.src[0]);
  const uint32_t* b = w.reg<uint32_t>(op.src[1]);
  const uint32_t* c = w.reg<uint32_t>(op.src[2]);
  uint32_t on[8];
  for (int k = 0; k < 8; ++k) on[k] = (op.imm >> k & 1) ? kAllLanes : 0;
  lanes(w.reg<uint32_t>(op.dst), mask, [=, &on](int i) {
    const uint32_t x = a[i], y = b[i], z = c[i];
    return (on[0] & ~x & ~y & ~z) | (on[1] & ~x & ~y & z) | (on[2] & ~x & y & ~z) | (on[3] & ~x & y & z) |
           (on[4] & x & ~y & ~z) | (on[5] & x & ~y & z) | (on[6] & x & y & ~z) | (on[7] & x & y & z);
  });
}

void decode_lop3(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("b32");
  m.end();
  d.operands(i, 5);
  op.dst = d.destination(i.operands[0], Type::kB32);
  for (int k = 0; k < 3; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], Type::kB32);
  if (i.operands[4].kind != Operand::kInteger || i.operands[4].bits > 255)
    d.fail("lop3 needs a table of 8 bits");
  op.imm = int64_t(i.operands[4].bits);
  op.run = lop3;
}

// ---- prmt: four bytes picked from eight

void permute(Warp& w, const Op& op, uint32_t mask) {
  ternary_op<uint32_t, uint32_t, uint32_t, uint32_t>(
      w, op, mask, [](uint32_t a, uint32_t b, uint32_t select) {
        const uint64_t bytes = uint64_t(b) << 32 | a;
        uint32_t r = 0;
        for (int k = 0; k < 4; ++k) {
          const uint32_t pick = select >> (4 * k);
          uint32_t byte = uint32_t(bytes >> (8 * (pick & 7))) & 0xff;
          const uint32_t sign = (byte & 0x80) ? 0xffu : 0u;
          byte = (pick & 8) ? sign : byte;
          r |= byte << (8 * k);
        }
        return r;
      });
}

void decode_permute(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("b32");  // the named modes (.f4e and others) are not emitted by compilers
  m.end();
  d.operands(i, 4);
  op.dst = d.destination(i.operands[0], Type::kB32);
  for (int k = 0; k < 3; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], Type::kB32);
  op.run = permute;
}

// ---- bit fields

template <class T>
T extract(T a, uint32_t position, uint32_t length) {
  using U = std::make_unsigned_t<T>;
  constexpr uint32_t kWidth = 8 * sizeof(T);
  position &= 0xff, length &= 0xff;
  if (length == 0) return 0;
  const uint32_t last = position + length - 1 < kWidth - 1 ? position + length - 1 : kWidth - 1;
  const bool negative = std::is_signed_v<T> && (U(a) >> last & 1);
  const U shifted = position < kWidth ? U(U(a) >> position) : U(0);
  const uint32_t valid = position < kWidth ? (length < kWidth - position ? length : kWidth - position) : 0;
  const U field = valid >= kWidth ? ~U(0) : U((U(1) << valid) - 1);
  return T((shifted & field) | (negative ? U(~field) : U(0)));
}

struct Bfe {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    ternary_op<T, T, uint32_t, uint32_t>(w, op, mask, extract<T>);
  }
};

void decode_bfe(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  op.run = type_bytes(type) >= 4 && !is_float(type) ? integer_handler<Bfe>(type) : nullptr;
  if (!op.run) d.fail("bfe takes .u32, .s32, .u64 or .s64");
  d.operands(i, 4);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[1] = d.source(i.operands[2], Type::kU32);
  op.src[2] = d.source(i.operands[3], Type::kU32);
}

template <class T>
void insert(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  const T* b = w.reg<T>(op.src[1]);
  const uint32_t* p = w.reg<uint32_t>(op.src[2]);
  const uint32_t* n = w.reg<uint32_t>(op.src[3]);
  lanes(w.reg<T>(op.dst), mask, [=](int i) {
    constexpr uint32_t kWidth = 8 * sizeof(T);
    const uint32_t position = p[i] & 0xff, length = n[i] & 0xff;
    if (position >= kWidth || length == 0) return b[i];
    const T field = T((length >= kWidth ? ~T(0) : T((T(1) << length) - 1)) << position);
    return T((b[i] & ~field) | (T(a[i] << position) & field));
  });
}

void decode_bfi(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  if (type != Type::kB32 && type != Type::kB64) d.fail("bfi takes .b32 or .b64");
  d.operands(i, 5);
  op.dst = d.destination(i.operands[0], type);
  for (int k = 0; k < 4; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], k < 2 ? type : Type::kU32);
  op.run = type == Type::kB32 ? insert<uint32_t> : insert<uint64_t>;
}

// ---- counting and searching; the results have 32 bits

template <class T>
struct Count {
  static void ones(Warp& w, const Op& op, uint32_t mask) {
    unary_op<uint32_t, T>(w, op, mask, [](T a) { return uint32_t(__builtin_popcountll(a)); });
  }
  static void zeros(Warp& w, const Op& op, uint32_t mask) {
    unary_op<uint32_t, T>(w, op, mask, [](T a) {
      return a == 0 ? uint32_t(8 * sizeof(T)) : uint32_t(__builtin_clzll(a)) - uint32_t(64 - 8 * sizeof(T));
    });
  }
  static void reverse(Warp& w, const Op& op, uint32_t mask) {
    unary_op<T, T>(w, op, mask, [](T a) {
      T r = 0;
      for (uint32_t k = 0; k < 8 * sizeof(T); ++k) r |= T((a >> k & 1) << (8 * sizeof(T) - 1 - k));
      return r;
    });
  }
};

void decode_count(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  if (type != Type::kB32 && type != Type::kB64) d.fail("'" + i.opcode + "' takes .b32 or .b64");
  const bool wide = type == Type::kB64;
  d.operands(i, 2);
  op.dst = d.destination(i.operands[0], i.opcode == "brev" ? type : Type::kU32);
  op.src[0] = d.source(i.operands[1], type);
  if (i.opcode == "popc") op.run = wide ? Count<uint64_t>::ones : Count<uint32_t>::ones;
  if (i.opcode == "clz") op.run = wide ? Count<uint64_t>::zeros : Count<uint32_t>::zeros;
  if (i.opcode == "brev") op.run = wide ? Count<uint64_t>::reverse : Count<uint32_t>::reverse;
}

struct Bfind {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    const bool amount = op.variant;
    unary_op<uint32_t, T>(w, op, mask, [amount](T a) {
      using U = std::make_unsigned_t<T>;
      constexpr int kWidth = 8 * int(sizeof(T));
      const U bits = a < 0 ? U(~a) : U(a);
      if (bits == 0) return kAllLanes;
      const int top = 63 - __builtin_clzll(bits);
      return uint32_t(amount ? kWidth - 1 - top : top);
    });
  }
};

void decode_bfind(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  op.variant = m.accept("shiftamt");
  const Type type = m.type();
  m.end();
  op.run = type_bytes(type) >= 4 && !is_float(type) ? integer_handler<Bfind>(type) : nullptr;
  if (!op.run) d.fail("bfind takes .u32, .s32, .u64 or .s64");
  d.operands(i, 2);
  op.dst = d.destination(i.operands[0], Type::kU32);
  op.src[0] = d.source(i.operands[1], type);
}

}  // namespace

void add_bits(Opcodes& all) {
  all["and"] = decode_bits<And>;
  all["or"] = decode_bits<Or>;
  all["xor"] = decode_bits<Xor>;
  all["not"] = decode_not;
  all["cnot"] = decode_cnot;
  all["shl"] = all["shr"] = decode_shift;
  all["shf"] = decode_funnel;
  all["lop3"] = decode_lop3;
  all["prmt"] = decode_permute;
  all["bfe"] = decode_bfe;
  all["bfi"] = decode_bfi;
  all["bfind"] = decode_bfind;
  all["popc"] = all["clz"] = all["brev"] = decode_count;
}

}  // namespace maestrale::ptxsim
