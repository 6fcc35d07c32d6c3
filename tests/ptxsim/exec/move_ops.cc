// SPDX-License-Identifier: Apache-2.0
// mov with its packing and unpacking forms, and the address conversions cvta and isspacep.
#include "exec/dispatch.h"
#include "exec/memory_map.h"

namespace maestrale::ptxsim {
namespace {

struct Move {
  template <class T>
  static void run(Warp& w, const Op& op, uint32_t mask) {
    unary_op<T, T>(w, op, mask, [](T a) { return a; });
  }
};

void move_predicate(Warp& w, const Op& op, uint32_t mask) {
  set_pred(w.pred(op.dst), mask, w.pred(op.src[0]) ^ (op.variant ? kAllLanes : 0));
}

// Registers of Part bytes into one of Whole, the first one lowest; and back.
template <class Whole, class Part>
void pack(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* from = op.fragments->a;
  lanes(w.reg<Whole>(op.dst), mask, [&](int i) {
    Whole whole = 0;
    for (size_t k = 0; k < sizeof(Whole) / sizeof(Part); ++k)
      whole |= Whole(Whole(w.reg<Part>(from[k])[i]) << (8 * sizeof(Part) * k));
    return whole;
  });
}
template <class Whole, class Part>
void unpack(Warp& w, const Op& op, uint32_t mask) {
  const Whole* a = w.reg<Whole>(op.src[0]);
  Whole copy[kWarpSize];  // the source may be among the destinations
  for (int i = 0; i < kWarpSize; ++i) copy[i] = a[i];
  for (size_t k = 0; k < sizeof(Whole) / sizeof(Part); ++k)
    lanes(w.reg<Part>(op.fragments->d[k]), mask,
          [&](int i) { return Part(copy[i] >> (8 * sizeof(Part) * k)); });
}

void decode_vector_move(Decoder& d, const Instruction& i, Op& op, Type type, bool packs) {
  const Operand& vector = i.operands[packs ? 1 : 0];
  const size_t parts = vector.elements.size();
  const int bytes = type_bytes(type), part = parts ? bytes / int(parts) : 0;
  if ((parts != 2 && parts != 4) || part < 2) d.fail("mov of a vector of this size is not known");
  const Type part_type = part == 2 ? Type::kB16 : Type::kB32;
  Fragments& list = d.new_fragments(op);
  for (size_t k = 0; k < parts; ++k)
    (packs ? list.a : list.d)[k] =
        packs ? d.source(vector.elements[k], part_type) : d.destination(vector.elements[k], part_type);
  if (packs) {
    op.dst = d.destination(i.operands[0], type);
    op.run = bytes == 4  ? pack<uint32_t, uint16_t>
             : part == 2 ? pack<uint64_t, uint16_t>
                         : pack<uint64_t, uint32_t>;
  } else {
    op.src[0] = d.source(i.operands[1], type);
    op.run = bytes == 4  ? unpack<uint32_t, uint16_t>
             : part == 2 ? unpack<uint64_t, uint16_t>
                         : unpack<uint64_t, uint32_t>;
  }
}

void decode_mov(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const Type type = m.type();
  m.end();
  d.operands(i, 2);
  if (i.operands[1].kind == Operand::kVector || i.operands[0].kind == Operand::kVector)
    return decode_vector_move(d, i, op, type, i.operands[1].kind == Operand::kVector);
  if (type == Type::kPred) {
    op.dst = d.predicate(i.operands[0]);
    op.src[0] = d.predicate(i.operands[1]);
    op.variant = i.operands[1].negated;
    op.run = move_predicate;
    return;
  }
  op.run = bits_handler<Move>(type_bytes(type));
  if (!op.run) d.fail("not a type of 'mov'");
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
}

uint64_t window(Decoder& d, const std::string& space) {
  if (space == "global" || space == "const") return 0;
  if (space == "shared") return kSharedWindow;
  if (space == "local") return kLocalWindow;
  if (space == "param") return kParamWindow;
  d.fail("unknown space '." + space + "'");
}

template <class T>
void convert_address(Warp& w, const Op& op, uint32_t mask) {
  const uint64_t shift = uint64_t(op.imm);
  unary_op<T, T>(w, op, mask, [shift](T a) { return T(uint64_t(a) + shift); });
}

void decode_cvta(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const bool to_space = m.accept("to");
  std::string space = m.take();
  const uint64_t shift = window(d, space);
  const Type type = m.type();
  m.end();
  if (type != Type::kU64) d.fail("cvta works on .u64");
  d.operands(i, 2);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.imm = int64_t(to_space ? 0 - shift : shift);
  op.run = convert_address<uint64_t>;
}

void is_space(Warp& w, const Op& op, uint32_t mask) {
  const uint64_t* a = w.reg<uint64_t>(op.src[0]);
  const Space wanted = Space(op.variant);
  set_pred(w.pred(op.dst), mask, ballot([=](int i) { return space_of(a[i]) == wanted; }));
}

void decode_isspacep(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const auto space = space_named("." + m.take());
  m.end();
  if (!space || *space == Space::kConst) m.unknown();
  d.operands(i, 2);
  op.dst = d.predicate(i.operands[0]);
  op.src[0] = d.source(i.operands[1], Type::kU64);
  op.variant = uint8_t(*space);
  op.run = is_space;
}

}  // namespace

void add_move(Opcodes& all) {
  all["mov"] = decode_mov;
  all["cvta"] = decode_cvta;
  all["isspacep"] = decode_isspacep;
}

}  // namespace maestrale::ptxsim
