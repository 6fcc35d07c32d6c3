// SPDX-License-Identifier: Apache-2.0
// ld, st, prefetch: elements of 1 to 8 bytes, vectors of up to four, registers wider than the element.
#include <cstring>

#include "exec/dispatch.h"
#include "exec/memory.h"

namespace maestrale::ptxsim {
namespace {

template <class Reg, class Mem>
void load_into(Reg* d, const Resolved& r, uint32_t mask, uint32_t at) {
  if constexpr (sizeof(Reg) == sizeof(Mem)) {
    if (r.contiguous && at == 0) {  // only called so for scalars
      std::memcpy(d, r.at[0], sizeof(Reg) * kWarpSize);
      return;
    }
  }
  each_lane(mask, [&](int i) {
    Mem value;
    std::memcpy(&value, r.at[i] + at, sizeof value);
    d[i] = Reg(value);
  });
}

template <class Mem>
void load_element(Warp& w, const Access& a, uint32_t slot, Resolved r, uint32_t mask, uint32_t at) {
  r.contiguous = r.contiguous && a.count == 1;
  using Signed = std::make_signed_t<Mem>;
  switch (a.register_bytes * 2 + a.sign_extend) {
    case 4: return load_into<uint16_t, Mem>(w.reg<uint16_t>(slot), r, mask, at);
    case 5: return load_into<int16_t, Signed>(w.reg<int16_t>(slot), r, mask, at);
    case 8: return load_into<uint32_t, Mem>(w.reg<uint32_t>(slot), r, mask, at);
    case 9: return load_into<int32_t, Signed>(w.reg<int32_t>(slot), r, mask, at);
    case 16: return load_into<uint64_t, Mem>(w.reg<uint64_t>(slot), r, mask, at);
    default: return load_into<int64_t, Signed>(w.reg<int64_t>(slot), r, mask, at);
  }
}

template <class Mem>
void store_element(Warp& w, const Access& a, uint32_t slot, const Resolved& r, uint32_t mask, uint32_t at) {
  const std::byte* from = w.reg<std::byte>(slot);
  if (r.contiguous && a.count == 1 && a.register_bytes == sizeof(Mem)) {
    std::memcpy(r.at[0], from, sizeof(Mem) * kWarpSize);
    return;
  }
  // Little-endian: the low bytes of the register come first.
  each_lane(mask,
            [&](int i) { std::memcpy(r.at[i] + at, from + size_t(i) * a.register_bytes, sizeof(Mem)); });
}

void load(Warp& w, const Op& op, uint32_t mask) {
  const Access& a = *op.access;
  const Lanes64 address = addresses(w, a.base, a.base_is_32_bits, a.offset);
  const AccessKind kind = a.is_volatile ? AccessKind::kVolatileLoad : AccessKind::kLoad;
  by_space(a.space, mask, address, [&](Space space, uint32_t here, const Lanes64& inside) {
    const Resolved r = resolve(w, op, here, space, inside, uint32_t(a.bytes * a.count), kind);
    for (uint32_t k = 0; k < a.count; ++k) {
      switch (a.bytes) {
        case 1: load_element<uint8_t>(w, a, a.values[k], r, here, k); break;
        case 2: load_element<uint16_t>(w, a, a.values[k], r, here, 2 * k); break;
        case 4: load_element<uint32_t>(w, a, a.values[k], r, here, 4 * k); break;
        default: load_element<uint64_t>(w, a, a.values[k], r, here, 8 * k); break;
      }
    }
    if (a.is_volatile && space == Space::kGlobal && w.cta->launch->races)
      each_lane(here, [&](int i) { w.cta->launch->races->synchronise(w, inside.v[i], false, true); });
  });
}

void store(Warp& w, const Op& op, uint32_t mask) {
  const Access& a = *op.access;
  const Lanes64 address = addresses(w, a.base, a.base_is_32_bits, a.offset);
  const AccessKind kind = a.is_volatile ? AccessKind::kVolatileStore : AccessKind::kStore;
  by_space(a.space, mask, address, [&](Space space, uint32_t here, const Lanes64& inside) {
    if (a.is_volatile && space == Space::kGlobal && w.cta->launch->races) {
      if (op.variant) w.cta->launch->races->fence(w);  // st.release
      each_lane(here, [&](int i) { w.cta->launch->races->synchronise(w, inside.v[i], true, false); });
    }
    const Resolved r = resolve(w, op, here, space, inside, uint32_t(a.bytes * a.count), kind);
    for (uint32_t k = 0; k < a.count; ++k) {
      switch (a.bytes) {
        case 1: store_element<uint8_t>(w, a, a.values[k], r, here, k); break;
        case 2: store_element<uint16_t>(w, a, a.values[k], r, here, 2 * k); break;
        case 4: store_element<uint32_t>(w, a, a.values[k], r, here, 4 * k); break;
        default: store_element<uint64_t>(w, a, a.values[k], r, here, 8 * k); break;
      }
    }
  });
}

// Cache hints change nothing here. False when the modifier is none.
bool is_hint(const std::string& m) {
  static const char* const hints[] = {"nc",
                                      "ca",
                                      "cg",
                                      "cs",
                                      "lu",
                                      "cv",
                                      "wb",
                                      "wt",
                                      "L1::no_allocate",
                                      "L1::evict_first",
                                      "L1::evict_last",
                                      "L1::evict_normal",
                                      "L1::evict_unchanged",
                                      "L2::64B",
                                      "L2::128B",
                                      "L2::256B"};
  for (const char* hint : hints)
    if (m == hint) return true;
  return false;
}

bool is_scope(Modifiers& m) { return m.accept("cta") || m.accept("gpu") || m.accept("sys"); }

void decode_access(Decoder& d, const Instruction& i, Op& op, bool is_store) {
  Modifiers m(i);
  Access& a = d.new_access(op);
  bool ordered = false;
  if (m.accept("volatile"))
    a.is_volatile = true;
  else if (m.accept("relaxed"))
    a.is_volatile = ordered = true;
  else if (m.accept(is_store ? "release" : "acquire"))
    a.is_volatile = ordered = true, op.variant = is_store;
  else
    m.accept("weak");
  if (ordered && !is_scope(m)) m.unknown();
  while (is_hint(m.peek())) m.take();
  if (const auto space = space_named("." + m.peek())) a.space = *space, m.take();
  if (a.space == Space::kShared) m.accept("cta");
  while (is_hint(m.peek())) m.take();
  a.count = m.accept("v2") ? 2 : m.accept("v4") ? 4 : 1;
  const Type type = m.type();
  m.end();
  if (type == Type::kPred || (is_store && a.space == Space::kConst))
    d.fail("not a form of '" + i.opcode + "'");
  a.bytes = uint8_t(type_bytes(type));
  a.sign_extend = is_signed(type) && !is_store;
  if (a.bytes * a.count > 16) d.fail("a vector access of more than 16 bytes");
  d.operands(i, 2);
  d.address(i.operands[is_store ? 0 : 1], a);
  const Operand& value = i.operands[is_store ? 1 : 0];
  if ((value.kind == Operand::kVector) != (a.count > 1) || (a.count > 1 && value.elements.size() != a.count))
    d.fail("the number of registers does not fit the vector");
  a.register_bytes = uint8_t(std::max<int>(a.bytes, 2));
  for (uint32_t k = 0; k < a.count; ++k) {
    const Operand& o = a.count > 1 ? value.elements[k] : value;
    if (const int bytes = d.register_bytes(o)) {
      if (k > 0 && bytes != a.register_bytes && d.register_bytes(value.elements[0]))
        d.fail("registers of different widths in one vector");
      a.register_bytes = uint8_t(bytes);
    }
  }
  for (uint32_t k = 0; k < a.count; ++k) {
    const Operand& o = a.count > 1 ? value.elements[k] : value;
    const Type as = a.register_bytes == 2 ? Type::kB16 : a.register_bytes == 4 ? Type::kB32 : Type::kB64;
    if (a.bytes > a.register_bytes) d.fail("the register is narrower than the value");
    if (is_store)
      a.values[k] =
          o.kind == Operand::kFloat && type == Type::kF32 ? d.source(o, Type::kF32) : d.source(o, as);
    else
      a.values[k] = d.destination(o, as);
  }
  op.run = is_store ? store : load;
  if (a.is_volatile) op.flow = Flow::kYield;
}

void decode_ld(Decoder& d, const Instruction& i, Op& op) { decode_access(d, i, op, false); }
void decode_st(Decoder& d, const Instruction& i, Op& op) { decode_access(d, i, op, true); }

void nothing(Warp&, const Op&, uint32_t) {}

void decode_prefetch(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  if (!m.accept("global")) m.accept("local");
  if (!m.accept("L1") && !m.accept("L2")) m.unknown();
  m.end();
  d.operands(i, 1);
  d.address(i.operands[0], d.new_access(op));
  op.run = nothing;
}

}  // namespace

void add_memory(Opcodes& all) {
  all["ld"] = decode_ld;
  all["st"] = decode_st;
  all["prefetch"] = decode_prefetch;
}

}  // namespace maestrale::ptxsim
