// SPDX-License-Identifier: Apache-2.0
// cp.async: copies from global to shared memory that are complete only after a wait. The bytes move
// at issue (eager) or at the wait (lazy); a correct kernel cannot tell. Until the wait nobody may touch
// the destination.
#include <algorithm>
#include <cstring>

#include "exec/dispatch.h"
#include "exec/memory.h"

namespace maestrale::ptxsim {
namespace {

void perform(Warp& w, const PendingCopy& copy) {
  Cta& cta = *w.cta;
  std::byte* to = cta.shared.data() + copy.to;
  std::memset(to, 0, copy.bytes);
  if (copy.valid_bytes) std::memcpy(to, cta.launch->memory->host(copy.from), copy.valid_bytes);
}

void complete(Warp& w, const PendingCopy& copy) {
  Cta& cta = *w.cta;
  if (!copy.done) perform(w, copy);
  std::fill_n(cta.shared_written.begin() + copy.to, copy.bytes, uint8_t(1));
  if (cta.options().check_races) cta.shared_races.complete(w, copy.lane, copy.to, copy.bytes);
}

void copy_async(Warp& w, const Op& op, uint32_t mask) {
  Cta& cta = *w.cta;
  const Access& a = *op.access;
  const Lanes64 to = addresses(w, a.base, a.base_is_32_bits, a.offset);
  const Lanes64 from = addresses(w, a.source, false, a.source_offset);
  const uint32_t* size = a.source_bytes == kNoSlot ? nullptr : w.reg<uint32_t>(a.source_bytes);
  uint32_t reads = 0;
  each_lane(mask, [&](int i) {
    const uint32_t n = size ? size[i] : a.bytes;
    if (n > a.bytes)
      report(w, op, i, FaultKind::kOutOfBounds, "cp.async with a source size of " + std::to_string(n));
    if (n == a.bytes) {
      reads |= 1u << i;
    } else if (n > 0) {  // a part: bytewise, it has no alignment of its own
      for (uint32_t k = 0; k < n; ++k) {
        Lanes64 one = from;
        one.v[i] += k;
        resolve(w, op, 1u << i, Space::kGlobal, one, 1, AccessKind::kLoad);
      }
    }
  });
  if (reads) resolve(w, op, reads, Space::kGlobal, from, a.bytes, AccessKind::kLoad);
  // Bounds, alignment and banks of the destination; it counts as written when the copy is complete.
  const bool races = cta.options().check_races;
  each_lane(mask, [&](int i) {
    if (to.v[i] % a.bytes)
      report(w, op, i, FaultKind::kMisaligned, "cp.async to a misaligned offset of shared memory");
    if (to.v[i] + a.bytes > cta.shared.size())
      report(w, op, i, FaultKind::kOutOfBounds, "cp.async writes behind the end of shared memory");
    if (races) cta.shared_races.access(w, op, i, uint32_t(to.v[i]), a.bytes, AccessKind::kStore, true);
  });
  const AsyncCopy mode = cta.options().async_copy;
  const bool eager = mode == AsyncCopy::kEager || (mode == AsyncCopy::kRandom && (cta.launch->random() & 1));
  each_lane(mask, [&](int i) {
    const uint32_t n = size ? size[i] : a.bytes;
    PendingCopy copy{w.copy_group[i], uint8_t(i),        a.bytes,   uint8_t(n),
                     eager,           uint32_t(to.v[i]), from.v[i], &op};
    if (eager) perform(w, copy);
    w.copies.push_back(copy);
    cta.counters->async_copies += a.bytes;
  });
}

void commit_group(Warp& w, const Op&, uint32_t mask) {
  each_lane(mask, [&](int i) { ++w.copy_group[i]; });
}

// All but the latest op.imm groups; -1: everything, committed or not.
void wait_group(Warp& w, const Op& op, uint32_t mask) {
  w.cta->launch->clock.tick();
  const auto is_over = [&](const PendingCopy& c) {
    return (mask >> c.lane & 1) && (op.imm < 0 || c.group + uint64_t(op.imm) < w.copy_group[c.lane]);
  };
  for (const PendingCopy& c : w.copies)
    if (is_over(c)) complete(w, c);
  w.copies.erase(std::remove_if(w.copies.begin(), w.copies.end(), is_over), w.copies.end());
}

void decode_copy(Decoder& d, const Instruction& i, Op& op, Modifiers& m) {
  const bool cg = m.accept("cg");
  if (!cg) m.expect("ca");
  m.expect("shared");
  m.accept("cta");
  m.expect("global");
  const bool policy = m.accept("L2::cache_hint");
  for (const char* hint : {"L2::64B", "L2::128B", "L2::256B"}) m.accept(hint);
  const bool late_policy = m.accept("L2::cache_hint");
  m.end();
  Access& a = d.new_access(op);
  const size_t fixed = 3 + (policy || late_policy ? 1 : 0);
  if (i.operands.size() != fixed && i.operands.size() != fixed + 1) d.fail("wrong number of operands");
  d.address(i.operands[1], a);
  if (a.base_is_32_bits) d.fail("the source of cp.async needs a 64-bit address");
  a.source = a.base;
  a.source_offset = a.offset;
  d.address(i.operands[0], a);
  const Operand& bytes = i.operands[2];
  if (bytes.kind != Operand::kInteger || (bytes.bits != 16 && (cg || (bytes.bits != 4 && bytes.bits != 8))))
    d.fail("cp.async copies 4, 8 or 16 bytes, with .cg 16");
  a.bytes = uint8_t(bytes.bits);
  if (i.operands.size() == fixed + 1) a.source_bytes = d.source(i.operands[3], Type::kU32);
  op.run = copy_async;
}

void decode_cp(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("async");
  if (m.accept("commit_group")) {
    m.end();
    d.operands(i, 0);
    op.run = commit_group;
  } else if (m.accept("wait_group")) {
    m.end();
    d.operands(i, 1);
    if (i.operands[0].kind != Operand::kInteger) d.fail("wait_group takes a constant");
    op.imm = int64_t(i.operands[0].bits);
    op.run = wait_group;
  } else if (m.accept("wait_all")) {
    m.end();
    d.operands(i, 0);
    op.imm = -1;
    op.run = wait_group;
  } else {
    decode_copy(d, i, op, m);
  }
}

void policy_value(Warp& w, const Op& op, uint32_t mask) {
  lanes(w.reg<uint64_t>(op.dst), mask, [](int) { return uint64_t{1}; });
}

// Cache policies change nothing here, but their handles are values.
void decode_createpolicy(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("fractional");
  if (!m.accept("L2::evict_first") && !m.accept("L2::evict_last")) m.expect("L2::evict_normal");
  m.accept("L2::evict_unchanged");
  m.expect("b64");
  m.end();
  op.dst = d.destination(i.operands.at(0), Type::kB64);
  op.run = policy_value;
}

}  // namespace

void add_async(Opcodes& all) {
  all["cp"] = decode_cp;
  all["createpolicy"] = decode_createpolicy;
}

}  // namespace maestrale::ptxsim
