// SPDX-License-Identifier: Apache-2.0
// Operations across the lanes of a warp: shfl, vote, match, redux, activemask. The scheduler has made
// sure that all lanes of the member mask are here, and calls the handler with exactly these lanes.
#include "exec/cta.h"
#include "exec/dispatch.h"

namespace maestrale::ptxsim {
namespace {

enum Shuffle : uint8_t { kUp, kDown, kBfly, kIdx };

void shuffle(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t* a = w.reg<uint32_t>(op.src[0]);
  const uint32_t* b = w.reg<uint32_t>(op.src[1]);
  const uint32_t* c = w.reg<uint32_t>(op.src[2]);
  uint32_t result[kWarpSize], in_range = 0;
  each_lane(mask, [&](int lane) {
    const int clamp = int(c[lane] & 31), segment = int(c[lane] >> 8 & 31), by = int(b[lane] & 31);
    const int last = (lane & segment) | (clamp & ~segment), first = lane & segment;
    int from = lane;
    bool valid = false;
    switch (op.variant) {
      case kUp: from = lane - by, valid = from >= last; break;
      case kDown: from = lane + by, valid = from <= last; break;
      case kBfly: from = lane ^ by, valid = from <= last; break;
      case kIdx: from = first | (by & ~segment), valid = from <= last; break;
    }
    if (!valid) from = lane;
    if (!(mask >> from & 1))
      report(w, op, lane, FaultKind::kWarpSync,
             "shfl reads lane " + std::to_string(from) + ", which takes no part in it");
    result[lane] = a[from];
    in_range |= uint32_t(valid) << lane;
  });
  uint32_t* d = w.reg<uint32_t>(op.dst);
  each_lane(mask, [&](int lane) { d[lane] = result[lane]; });
  if (op.dst2 != kNoSlot) set_pred(w.pred(op.dst2), mask, in_range);
  w.cta->counters->shuffles += uint64_t(__builtin_popcount(mask));
}

void decode_shfl(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("sync");
  op.variant = m.accept("up")     ? kUp
               : m.accept("down") ? kDown
               : m.accept("bfly") ? kBfly
                                  : (m.expect("idx"), kIdx);
  m.expect("b32");
  m.end();
  d.operands(i, 5);
  op.dst = d.destination(i.operands[0], Type::kB32);
  if (i.operands[0].second >= 0) op.dst2 = d.predicate_register(i.operands[0].second);
  for (int k = 0; k < 4; ++k) op.src[k] = d.source(i.operands[size_t(k) + 1], Type::kB32);
  op.run = shuffle;
  op.flow = Flow::kCollective;
}

enum Vote : uint8_t { kAll, kAny, kUni, kBallot };

void vote(Warp& w, const Op& op, uint32_t mask) {
  const uint32_t on = (w.pred(op.src[0]) ^ (op.imm ? kAllLanes : 0)) & mask;
  ++w.cta->counters->votes;
  if (op.variant == kBallot) {
    lanes(w.reg<uint32_t>(op.dst), mask, [=](int) { return on; });
    return;
  }
  const bool value = op.variant == kAll ? on == mask : op.variant == kAny ? on != 0 : on == mask || on == 0;
  set_pred(w.pred(op.dst), mask, value ? kAllLanes : 0);
}

void decode_vote(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("sync");
  op.variant = m.accept("all")   ? kAll
               : m.accept("any") ? kAny
               : m.accept("uni") ? kUni
                                 : (m.expect("ballot"), kBallot);
  m.expect(op.variant == kBallot ? "b32" : "pred");
  m.end();
  d.operands(i, 3);
  op.dst = op.variant == kBallot ? d.destination(i.operands[0], Type::kB32) : d.predicate(i.operands[0]);
  op.src[0] = d.predicate(i.operands[1]);
  op.imm = i.operands[1].negated;
  op.src[3] = d.source(i.operands[2], Type::kB32);
  op.run = vote;
  op.flow = Flow::kCollective;
}

template <class T, bool kAllEqual>
void match(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  uint32_t result[kWarpSize], equal = 0;
  each_lane(mask, [&](int lane) {
    uint32_t same = 0;
    each_lane(mask, [&](int other) { same |= uint32_t(a[other] == a[lane]) << other; });
    if (same == mask) equal |= 1u << lane;
    result[lane] = kAllEqual ? (same == mask ? mask : 0) : same;
  });
  uint32_t* d = w.reg<uint32_t>(op.dst);
  each_lane(mask, [&](int lane) { d[lane] = result[lane]; });
  if (op.dst2 != kNoSlot) set_pred(w.pred(op.dst2), mask, equal);
  ++w.cta->counters->votes;
}

void decode_match(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  const bool all = m.accept("all");
  if (!all) m.expect("any");
  m.expect("sync");
  const Type type = m.type();
  m.end();
  if (type != Type::kB32 && type != Type::kB64) d.fail("match takes .b32 or .b64");
  d.operands(i, 3);
  op.dst = d.destination(i.operands[0], Type::kB32);
  if (i.operands[0].second >= 0) {
    if (!all) d.fail("match.any has one result");
    op.dst2 = d.predicate_register(i.operands[0].second);
  }
  op.src[0] = d.source(i.operands[1], type);
  op.src[3] = d.source(i.operands[2], Type::kB32);
  const bool wide = type == Type::kB64;
  op.run = all    ? wide ? match<uint64_t, true> : match<uint32_t, true>
              : wide ? match<uint64_t, false>
                  : match<uint32_t, false>;
  op.flow = Flow::kCollective;
}

template <class T, class F>
void reduce(Warp& w, const Op& op, uint32_t mask) {
  const T* a = w.reg<T>(op.src[0]);
  T value = a[__builtin_ctz(mask)];
  each_lane(mask & (mask - 1), [&](int lane) { value = T(F()(value, a[lane])); });
  lanes(w.reg<T>(op.dst), mask, [=](int) { return value; });
  ++w.cta->counters->votes;
}

// clang-format off
struct Sum { uint32_t operator()(uint32_t a, uint32_t b) const { return a + b; } };
struct Least { template <class T> T operator()(T a, T b) const { return b < a ? b : a; } };
struct Greatest { template <class T> T operator()(T a, T b) const { return a < b ? b : a; } };
struct And { uint32_t operator()(uint32_t a, uint32_t b) const { return a & b; } };
struct Or { uint32_t operator()(uint32_t a, uint32_t b) const { return a | b; } };
struct Xor { uint32_t operator()(uint32_t a, uint32_t b) const { return a ^ b; } };
// clang-format on

void decode_redux(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("sync");
  const std::string how = m.take();
  const Type type = m.type();
  m.end();
  const bool bits = type == Type::kB32, s = type == Type::kS32, u = type == Type::kU32;
  if (how == "add" && (s || u)) op.run = reduce<uint32_t, Sum>;
  if (how == "min" && (s || u)) op.run = s ? reduce<int32_t, Least> : reduce<uint32_t, Least>;
  if (how == "max" && (s || u)) op.run = s ? reduce<int32_t, Greatest> : reduce<uint32_t, Greatest>;
  if (how == "and" && bits) op.run = reduce<uint32_t, And>;
  if (how == "or" && bits) op.run = reduce<uint32_t, Or>;
  if (how == "xor" && bits) op.run = reduce<uint32_t, Xor>;
  if (!op.run) d.fail("unknown reduction '." + how + "'");
  d.operands(i, 3);
  op.dst = d.destination(i.operands[0], type);
  op.src[0] = d.source(i.operands[1], type);
  op.src[3] = d.source(i.operands[2], Type::kB32);
  op.flow = Flow::kCollective;
}

void active_mask(Warp& w, const Op& op, uint32_t mask) {
  lanes(w.reg<uint32_t>(op.dst), mask, [=](int) { return mask; });
}

void decode_activemask(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("b32");
  m.end();
  d.operands(i, 1);
  op.dst = d.destination(i.operands[0], Type::kB32);
  op.run = active_mask;
}

}  // namespace

void add_warp_ops(Opcodes& all) {
  all["shfl"] = decode_shfl;
  all["vote"] = decode_vote;
  all["match"] = decode_match;
  all["redux"] = decode_redux;
  all["activemask"] = decode_activemask;
}

}  // namespace maestrale::ptxsim
