// SPDX-License-Identifier: Apache-2.0
// bra, call, ret, exit, trap, barriers and fences. Most only set Op::flow; the scheduler acts on it.
#include <cstring>

#include "exec/dispatch.h"
#include "exec/memory.h"
#include "exec/supplied.h"

namespace maestrale::ptxsim {
namespace {

void decode_bra(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.accept("uni");
  m.end();
  d.operands(i, 1);
  op.flow = Flow::kBranch;
}

void decode_ret(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.accept("uni");
  m.end();
  d.operands(i, 0);
  op.flow = Flow::kReturn;
}

void decode_exit(Decoder& d, const Instruction& i, Op& op) {
  Modifiers(i).end();
  d.operands(i, 0);
  op.flow = Flow::kExit;
}

void trap(Warp& w, const Op& op, uint32_t mask) {
  report(w, op, __builtin_ctz(mask), FaultKind::kTrap, "trap");
}

void decode_trap(Decoder& d, const Instruction& i, Op& op) {
  Modifiers(i).end();
  d.operands(i, 0);
  op.run = trap;
}

void nothing(Warp&, const Op&, uint32_t) {}

void decode_nanosleep(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("u32");
  m.end();
  d.operands(i, 1);
  op.src[0] = d.source(i.operands[0], Type::kU32);
  op.run = nothing;
  op.flow = Flow::kYield;
}

// ---- calls

void decode_call(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.accept("uni");
  m.end();
  if (i.guard >= 0) d.fail("a guarded call is not known");
  size_t at = 0;
  const Operand* results = nullptr;
  const Operand* arguments = nullptr;
  if (at < i.operands.size() && i.operands[at].kind == Operand::kVector) results = &i.operands[at++];
  if (at >= i.operands.size() || i.operands[at].kind != Operand::kSymbol)
    d.fail("an indirect call is not known");
  const std::string name = i.operands[at++].name;
  if (at < i.operands.size()) arguments = &i.operands[at++];
  if (at != i.operands.size()) d.fail("too many operands of 'call'");
  const Function& f = d.callee(i, name);
  CallSite& call = d.new_call(op);
  call.callee = name;
  const auto copies = [&](const Operand* list, const std::vector<Variable>& formals,
                          std::vector<CallSite::Copy>& out, bool in) {
    if ((list ? list->elements.size() : 0) != formals.size())
      d.fail("'" + name + "' takes another number of parameters");
    for (size_t k = 0; k < formals.size(); ++k) {
      if (list->elements[k].kind != Operand::kSymbol) d.fail("an argument must be a .param variable");
      const int32_t here = int32_t(d.frame_offset(list->elements[k].name));
      const int32_t there = int32_t(d.formal_offset(f, formals[k]));
      out.push_back({in ? here : there, in ? there : here, int32_t(formals[k].bytes)});
    }
  };
  copies(arguments, f.params, call.arguments, true);
  copies(results, f.returns, call.results, false);
  if (is_supplied(name))
    op.run = supplied(name);
  else
    op.flow = Flow::kCall;
}

// ---- barriers: src[0] = number, src[1] = threads, src[2] = predicate; variant as below

void decode_barrier(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const bool aligned_name = i.opcode == "bar";
  if (aligned_name && m.peek() == "warp") {
    m.take();
    m.expect("sync");
    m.end();
    d.operands(i, 1);
    op.src[3] = d.source(i.operands[0], Type::kU32);
    op.flow = Flow::kWarpBarrier;
    return;
  }
  m.accept("cta");
  const std::string what = m.take();
  int kind = 0;
  size_t first = 0, predicate = ~size_t{0};
  if (what == "sync") {
    kind = kBarSync;
  } else if (what == "arrive") {
    kind = kBarArrive;
  } else if (what == "red") {
    const std::string how = m.take();
    kind = how == "popc" ? kBarPopc : how == "and" ? kBarAnd : how == "or" ? kBarOr : 0;
    if (kind == 0) d.fail("unknown modifier '." + how + "'");
    first = 1;
    predicate = i.operands.size() - 1;
  } else {
    d.fail("unknown modifier '." + what + "' in '" + i.opcode + "'");
  }
  const bool aligned = m.accept("aligned") || aligned_name;
  if (first == 1) m.expect(kind == kBarPopc ? "u32" : "pred");
  m.end();
  const size_t plain = i.operands.size() - first - (first ? 1 : 0);
  if (plain < 1 || plain > 2 || (kind == kBarArrive && plain != 2)) d.fail("wrong number of operands");
  op.src[0] = d.source(i.operands[first], Type::kU32);
  if (plain == 2) op.src[1] = d.source(i.operands[first + 1], Type::kU32);
  if (first) {
    op.src[2] = d.predicate(i.operands[predicate]);
    op.dst = kind == kBarPopc ? d.destination(i.operands[0], Type::kU32) : d.predicate(i.operands[0]);
    op.imm = i.operands[predicate].negated;
  }
  op.variant = uint8_t(kind | (aligned ? kBarAligned : 0));
  op.flow = Flow::kCtaBarrier;
}

void fence(Warp& w, const Op&, uint32_t) {
  if (w.cta->launch->races) w.cta->launch->races->fence(w);
}

void decode_membar(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  if (i.opcode == "fence" && !m.accept("acq_rel")) m.expect("sc");
  if (!m.accept("cta") && !m.accept("gl") && !m.accept("gpu")) m.expect("sys");
  m.end();
  d.operands(i, 0);
  op.run = fence;
  op.flow = Flow::kYield;
}

}  // namespace

void add_control(Opcodes& all) {
  all["bra"] = decode_bra;
  all["ret"] = decode_ret;
  all["exit"] = decode_exit;
  all["trap"] = decode_trap;
  all["nanosleep"] = decode_nanosleep;
  all["call"] = decode_call;
  all["bar"] = all["barrier"] = decode_barrier;
  all["membar"] = all["fence"] = decode_membar;
}

}  // namespace maestrale::ptxsim
