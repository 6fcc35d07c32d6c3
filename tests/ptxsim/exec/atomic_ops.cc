// SPDX-License-Identifier: Apache-2.0
// atom and red: lane after lane, each a read, an operation and a write.
#include <cstring>

#include "exec/dispatch.h"
#include "exec/memory.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

constexpr int kReleases = 1, kAcquires = 2;

template <class T, class F>
void atomic(Warp& w, const Op& op, uint32_t mask) {
  const Access& a = *op.access;
  const Lanes64 address = addresses(w, a.base, a.base_is_32_bits, a.offset);
  w.cta->counters->atomics += uint64_t(__builtin_popcount(mask));
  by_space(a.space, mask, address, [&](Space space, uint32_t here, const Lanes64& inside) {
    GlobalRaces* races = space == Space::kGlobal ? w.cta->launch->races.get() : nullptr;
    if (races) {
      if (op.variant & kReleases) races->fence(w);
      each_lane(here, [&](int i) { races->synchronise(w, inside.v[i], true, true); });
    }
    const Resolved r = resolve(w, op, here, space, inside, sizeof(T), AccessKind::kAtomic);
    // One after the other: two lanes may name the same word.
    each_lane(here, [&](int i) {
      T old;
      std::memcpy(&old, r.at[i], sizeof old);
      const T b = w.reg<T>(op.src[1])[i];
      const T c = op.src[2] == kNoSlot ? T() : w.reg<T>(op.src[2])[i];
      const T fresh = F()(old, b, c);
      std::memcpy(r.at[i], &fresh, sizeof fresh);
      if (op.dst != kNoSlot) w.reg<T>(op.dst)[i] = old;
    });
  });
}

// clang-format off
struct Add { template <class T> T operator()(T a, T b, T) const { return T(a + b); } };
struct Min { template <class T> T operator()(T a, T b, T) const { return b < a ? b : a; } };
struct Max { template <class T> T operator()(T a, T b, T) const { return a < b ? b : a; } };
struct And { template <class T> T operator()(T a, T b, T) const { return a & b; } };
struct Or { template <class T> T operator()(T a, T b, T) const { return a | b; } };
struct Xor { template <class T> T operator()(T a, T b, T) const { return a ^ b; } };
struct Exchange { template <class T> T operator()(T, T b, T) const { return b; } };
struct CompareSwap { template <class T> T operator()(T a, T b, T c) const { return a == b ? c : a; } };
struct Increment { uint32_t operator()(uint32_t a, uint32_t b, uint32_t) const { return a >= b ? 0 : a + 1; } };
struct Decrement { uint32_t operator()(uint32_t a, uint32_t b, uint32_t) const { return a == 0 || a > b ? b : a - 1; } };
// clang-format on
template <bool kBfloat>
struct AddHalf {
  uint16_t operator()(uint16_t a, uint16_t b, uint16_t) const {
    return kBfloat ? to_bfloat(add_to_odd(from_bfloat(a), from_bfloat(b)))
                   : to_half(add_to_odd(from_half(a), from_half(b)));
  }
};
template <bool kBfloat>
struct AddHalves {
  uint32_t operator()(uint32_t a, uint32_t b, uint32_t) const {
    const AddHalf<kBfloat> add;
    return uint32_t(add(uint16_t(a >> 16), uint16_t(b >> 16), 0)) << 16 | add(uint16_t(a), uint16_t(b), 0);
  }
};

template <class F>
Handler of_integers(Type t) {
  switch (t) {
    case Type::kU32: return atomic<uint32_t, F>;
    case Type::kS32: return atomic<int32_t, F>;
    case Type::kU64: return atomic<uint64_t, F>;
    case Type::kS64: return atomic<int64_t, F>;
    default: return nullptr;
  }
}
template <class F>
Handler of_bits(Type t) {
  return t == Type::kB32   ? Handler(atomic<uint32_t, F>)
         : t == Type::kB64 ? Handler(atomic<uint64_t, F>)
                           : nullptr;
}

Handler handler(const std::string& name, Type type, bool noftz) {
  const bool half =
      type == Type::kF16 || type == Type::kBf16 || type == Type::kF16x2 || type == Type::kBf16x2;
  if (noftz != half) return nullptr;  // .noftz belongs to the halves
  if (name == "add") {
    switch (type) {
      case Type::kU32:
      case Type::kS32: return atomic<uint32_t, Add>;
      case Type::kU64: return atomic<uint64_t, Add>;
      case Type::kF32: return atomic<float, Add>;
      case Type::kF64: return atomic<double, Add>;
      case Type::kF16: return atomic<uint16_t, AddHalf<false>>;
      case Type::kBf16: return atomic<uint16_t, AddHalf<true>>;
      case Type::kF16x2: return atomic<uint32_t, AddHalves<false>>;
      case Type::kBf16x2: return atomic<uint32_t, AddHalves<true>>;
      default: return nullptr;
    }
  }
  if (name == "min") return of_integers<Min>(type);
  if (name == "max") return of_integers<Max>(type);
  if (name == "and") return of_bits<And>(type);
  if (name == "or") return of_bits<Or>(type);
  if (name == "xor") return of_bits<Xor>(type);
  if (name == "exch") return of_bits<Exchange>(type);
  if (name == "cas") return of_bits<CompareSwap>(type);
  if (name == "inc" && type == Type::kU32) return atomic<uint32_t, Increment>;
  if (name == "dec" && type == Type::kU32) return atomic<uint32_t, Decrement>;
  return nullptr;
}

void decode_atomic(Decoder& d, const Instruction& i, Op& op) {
  const bool reduces = i.opcode == "red";
  Modifiers m(i);
  if (m.accept("release"))
    op.variant = kReleases;
  else if (m.accept("acquire"))
    op.variant = kAcquires;
  else if (m.accept("acq_rel"))
    op.variant = kReleases | kAcquires;
  else
    m.accept("relaxed");
  if (!m.accept("cta") && !m.accept("gpu")) m.accept("sys");
  Access& a = d.new_access(op);
  if (const auto space = space_named("." + m.peek())) {
    a.space = *space;
    m.take();
    if (a.space != Space::kGlobal && a.space != Space::kShared)
      d.fail("atomics work on global and shared memory");
    if (a.space == Space::kShared) m.accept("cta");
  }
  const std::string name = m.take();
  const bool noftz = m.accept("noftz");
  const Type type = m.type();
  m.end();
  op.run = handler(name, type, noftz);
  if (!op.run || (reduces && (name == "exch" || name == "cas")))
    d.fail("unknown atomic operation '" + i.opcode + "." + name + "' on this type");
  const size_t first = reduces ? 0 : 1;
  d.operands(i, first + (name == "cas" ? 3 : 2));
  if (!reduces) op.dst = d.destination(i.operands[0], type);
  d.address(i.operands[first], a);
  op.src[1] = d.source(i.operands[first + 1], type);
  if (name == "cas") op.src[2] = d.source(i.operands[first + 2], type);
  op.flow = Flow::kYield;
}

}  // namespace

void add_atomic(Opcodes& all) { all["atom"] = all["red"] = decode_atomic; }

}  // namespace maestrale::ptxsim
