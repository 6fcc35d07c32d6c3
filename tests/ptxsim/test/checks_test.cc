// SPDX-License-Identifier: Apache-2.0
// Each check finds what it is for, and stays silent on the correct version of the same kernel.
#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

// Thread t gets %t, the address of its word of `x` in %o and of `x` itself in %g; 64 bytes a warp of
// shared memory at `sm`.
std::string kernel(const std::string& body) {
  return module_text(
      ".visible .entry k(.param .u64 x) {\n.reg .b32 %t, %r, %s, %n, %c;\n.reg .b16 %h;\n.reg .b64 %g, %o, "
      "%w;\n.reg .pred %p, %q;\n"
      ".shared .align 16 .b8 sm[1024];\n.local .align 8 .b8 depot[16];\n"
      "ld.param.u64 %g, [x];\nmov.u32 %t, %tid.x;\nmov.u32 %c, %ctaid.x;\nmul.wide.u32 %w, %t, 4;\nadd.s64 "
      "%o, %g, %w;\n"
      "mov.u32 %s, sm;\nshl.b32 %n, %t, 2;\nadd.u32 %s, %s, %n;\nmov.u32 %r, 0;\n" +
      body + "\nret;\n}\n");
}

void run(const std::string& body, uint32_t grid = 1, uint32_t block = 64, uint64_t seed = 1,
         bool initcheck = true) {
  Simulation s(kernel(body));
  s.options.seed = seed;
  s.options.check_uninitialised = initcheck;
  const uint64_t x = s.upload(std::vector<char>(1024, 0));
  s.launch("k", {grid}, {block}, 0, x);
}

// Races depend on the order; some seed must show them. A racing read may also come too early and find
// nothing written: that check is off here.
void run_seeds(const std::string& body, uint32_t grid = 1, uint32_t block = 64) {
  for (uint64_t seed = 1; seed <= 8; ++seed) run(body, grid, block, seed, false);
}

TEST("ptxsim checks: out of bounds in global, shared, local and parameter memory") {
  run("ld.global.u32 %r, [%o+768];");
  CHECK_FAULT(run("ld.global.u32 %r, [%o+772];"), FaultKind::kOutOfBounds);
  CHECK_FAULT(run("st.global.u32 [%g+-4], %r;"), FaultKind::kOutOfBounds);
  CHECK_FAULT(run("ld.u32 %r, [8];"), FaultKind::kOutOfBounds);
  CHECK_FAULT(run("st.shared.u32 [%s+772], %r;"), FaultKind::kOutOfBounds);
  CHECK_FAULT(run("mov.u64 %w, depot;\nst.local.u32 [%w+16], %r;"), FaultKind::kOutOfBounds);
  CHECK_FAULT(run("ld.param.u32 %r, [x+8];"), FaultKind::kOutOfBounds);
}

TEST("ptxsim checks: a guard keeps lanes away from memory they may not touch") {
  run("setp.lt.u32 %p, %t, 63;\n@%p ld.global.u32 %r, [%o+772];");
  CHECK_FAULT(run("setp.le.u32 %p, %t, 63;\n@%p ld.global.u32 %r, [%o+772];"), FaultKind::kOutOfBounds);
}

TEST("ptxsim checks: misaligned addresses") {
  CHECK_FAULT(run("ld.global.u32 %r, [%o+2];"), FaultKind::kMisaligned);
  CHECK_FAULT(run("st.shared.u32 [%s+1], %r;"), FaultKind::kMisaligned);
  CHECK_FAULT(run("ld.global.v2.u32 {%r, %n}, [%o];"), FaultKind::kMisaligned);
}

TEST("ptxsim checks: memory that nobody wrote") {
  Simulation s(kernel("ld.global.u32 %r, [%o];"));
  const uint64_t x = s.reserve<uint32_t>(64);
  CHECK_FAULT(s.launch("k", {1}, {64}, 0, x), FaultKind::kUninitialised);
  CHECK_FAULT(run("ld.shared.u32 %r, [%s];"), FaultKind::kUninitialised);
  CHECK_FAULT(run("mov.u64 %w, depot;\nld.local.u32 %r, [%w];"), FaultKind::kUninitialised);
  run("mov.u64 %w, depot;\nst.local.u32 [%w], %t;\nld.local.u32 %r, [%w];");
  CHECK_FAULT(run("mov.b16 %h, 1;\nst.shared.u16 [%s], %h;\nld.shared.u32 %r, [%s];"),
              FaultKind::kUninitialised);
}

TEST("ptxsim checks: shared memory races between warps, read after write and write after read") {
  const std::string exchange =
      "st.shared.u32 [%s], %t;\nBAR\nxor.b32 %n, %n, 128;\nmov.u32 %s, sm;\nadd.u32 %s, %s, "
      "%n;\nld.shared.u32 %r, [%s];\nEND";
  const auto with = [&](const std::string& first, const std::string& last) {
    std::string text = exchange;
    text.replace(text.find("BAR"), 3, first);
    text.replace(text.find("END"), 3, last);
    return text;
  };
  run_seeds(with("bar.sync 0;", ""));
  run_seeds(with("bar.sync 0;", "bar.sync 0;\nst.shared.u32 [%s], %t;"));
  CHECK_FAULT(run_seeds(with("bar.warp.sync -1;", "")), FaultKind::kRace);
  CHECK_FAULT(
      run_seeds(with("bar.sync 0;",
                     "mov.u32 %s, sm;\nmul.lo.u32 %n, %t, 4;\nadd.u32 %s, %s, %n;\nst.shared.u32 [%s], %t;")),
      FaultKind::kRace);
}

TEST("ptxsim checks: shared memory races inside a warp") {
  const std::string neighbour =
      "xor.b32 %n, %n, 4;\nmov.u32 %s, sm;\nadd.u32 %s, %s, %n;\nld.shared.u32 %r, [%s];";
  run("st.shared.u32 [%s], %t;\nbar.warp.sync -1;\n" + neighbour);
  CHECK_FAULT(run("st.shared.u32 [%s], %t;\n" + neighbour), FaultKind::kRace);
  CHECK_FAULT(run("mov.u32 %s, sm;\nst.shared.u32 [%s], %t;"), FaultKind::kRace);
  run("setp.lt.u32 %p, %t, 32;\nmov.u32 %s, sm;\nsetp.eq.u32 %q, %t, 0;\n@%q st.shared.u32 [%s], "
      "%t;\nbar.sync 0;\natom.shared.add.u32 %r, [%s], 1;");
}

TEST("ptxsim checks: bar.sync with a thread count orders only those that come") {
  const std::string text =
      "st.shared.u32 [%s], %t;\nsetp.ge.u32 %p, %t, 64;\n@%p bra OTHER;\nbar.sync 1, 64;\nbra.uni JOIN;\n"
      "OTHER: bar.sync 2, 32;\nJOIN: xor.b32 %n, %n, DISTANCE;\nmov.u32 %s, sm;\nadd.u32 %s, %s, "
      "%n;\nld.shared.u32 %r, [%s];";
  const auto with = [&](const std::string& distance) {
    std::string s = text;
    s.replace(s.find("DISTANCE"), 8, distance);
    return s;
  };
  run_seeds(with("0"), 1, 96);
  run_seeds("setp.ge.u32 %p, %t, 64;\n@%p ret;\n" + with("128"), 1, 96);
  CHECK_FAULT(run_seeds(with("256"), 1, 128), FaultKind::kRace);
}

TEST("ptxsim checks: global memory races between blocks, and the last-block pattern that has none") {
  run_seeds("atom.global.add.u32 %r, [%g], 1;", 4);
  run_seeds("mad.lo.u32 %n, %c, 256, %n;\ncvt.u64.u32 %w, %n;\nadd.s64 %o, %g, %w;\nst.global.u32 [%o], %t;",
            4);
  CHECK_FAULT(run_seeds("st.global.u32 [%o], %t;", 4), FaultKind::kRace);
  const std::string last_block =
      "mul.wide.u32 %w, %c, 4;\nadd.s64 %o, %g, %w;\nsetp.ne.u32 %p, %t, 0;\n@%p bra END;\nst.global.u32 "
      "[%o+4], %c;\nFENCE"
      "atom.global.add.u32 %r, [%g], 1;\nsetp.ne.u32 %p, %r, 3;\n@%p bra END;\nld.global.u32 %r, "
      "[%g+4];\nld.global.u32 %n, [%g+8];\nld.global.u32 %n, [%g+12];\nEND:";
  const auto with = [&](const std::string& fence) {
    std::string s = last_block;
    s.replace(s.find("FENCE"), 5, fence);
    return s;
  };
  run_seeds(with("membar.gl;\n"), 4);
  CHECK_FAULT(run_seeds(with(""), 4), FaultKind::kRace);
}

TEST("ptxsim checks: barriers in diverged code, deadlocks") {
  CHECK_FAULT(run("and.b32 %n, %t, 1;\nsetp.eq.u32 %p, %n, 0;\n@%p bra A;\nbar.sync 0;\nbra.uni B;\nA: "
                  "bar.sync 0;\nB:"),
              FaultKind::kBarrier);
  CHECK_FAULT(run("and.b32 %n, %t, 1;\nsetp.eq.u32 %p, %n, 0;\n@%p bar.sync 0;"), FaultKind::kBarrier);
  CHECK_FAULT(run("setp.lt.u32 %p, %t, 32;\n@%p bra A;\nbar.sync 1;\nbra.uni B;\nA: bar.sync 2;\nB:"),
              FaultKind::kDeadlock);
  CHECK_FAULT(run("bar.sync 0, 128;"), FaultKind::kDeadlock);
  CHECK_FAULT(run("bar.sync 16;"), FaultKind::kBarrier);
  CHECK_FAULT(run("bar.sync 0, 33;"), FaultKind::kBarrier);
}

TEST("ptxsim checks: member masks of warp-wide operations") {
  CHECK_FAULT(run("shfl.sync.bfly.b32 %r, %t, 1, 31, 0xffff;"), FaultKind::kWarpSync);
  CHECK_FAULT(run("setp.lt.u32 %p, %t, 16;\n@%p bra A;\nmov.u32 %r, 1;\nbra.uni B;\nA: shfl.sync.bfly.b32 "
                  "%r, %t, 1, 31, -1;\nB:",
                  1, 32),
              FaultKind::kWarpSync);
  run("setp.lt.u32 %p, %t, 16;\n@%p bra A;\nmov.u32 %r, 1;\nbra.uni B;\nA: shfl.sync.bfly.b32 %r, %t, 1, 31, "
      "0xffff;\nB:",
      1, 32);
  CHECK_FAULT(run("setp.lt.u32 %p, %t, 16;\n@%p bra A;\nmov.u32 %r, 1;\nbra.uni B;\nA: shfl.sync.idx.b32 %r, "
                  "%t, 20, 31, 0xffff;\nB:",
                  1, 32),
              FaultKind::kWarpSync);
  CHECK_FAULT(run("vote.sync.ballot.b32 %r, 1, %t;"), FaultKind::kWarpSync);
}

TEST("ptxsim checks: asynchronous copies that nobody waited for") {
  const std::string copy =
      "shl.b32 %n, %t, 4;\ncvt.u64.u32 %w, %n;\nadd.s64 %o, %g, %w;\nmov.u32 %s, sm;\nadd.u32 %s, %s, %n;\n"
      "cp.async.cg.shared.global [%s], [%o], 16;\ncp.async.commit_group;\n";
  run(copy + "cp.async.wait_group 0;\nld.shared.u32 %r, [%s];");
  run(copy + "cp.async.wait_all;\nbar.sync 0;\nxor.b32 %s, %s, 512;\nld.shared.u32 %r, [%s];");
  CHECK_FAULT(run(copy + "ld.shared.u32 %r, [%s];"), FaultKind::kRace);
  CHECK_FAULT(run(copy + "cp.async.wait_group 1;\nld.shared.u32 %r, [%s];"), FaultKind::kRace);
  CHECK_FAULT(run_seeds(copy + "cp.async.wait_group 0;\nxor.b32 %s, %s, 512;\nld.shared.u32 %r, [%s];"),
              FaultKind::kRace);
  CHECK_FAULT(run(copy), FaultKind::kRace);
}

TEST("ptxsim checks: traps") { CHECK_FAULT(run("trap;"), FaultKind::kTrap); }

TEST("ptxsim counters: sectors, wavefronts, instructions") {
  Simulation s(
      kernel("ld.global.u32 %r, [%o];\nst.shared.u32 [%s], %r;\nshl.b32 %n, %n, 1;\nand.b32 %n, %n, "
             "252;\nmov.u32 %s, sm;\nadd.u32 %s, %s, %n;\n"
             "setp.lt.u32 %p, %t, 16;\n@%p st.shared.u32 [%s+512], %r;"));
  const uint64_t x = s.upload(std::vector<char>(1024, 0));
  const Counters c = s.launch("k", {1}, {32}, 0, x);
  CHECK_EQ(c.sectors_requested, 4u);
  CHECK_EQ(c.unique_read_sectors, 4u);
  CHECK_EQ(c.global_bytes, 128u);
  CHECK_EQ(c.shared_requests, 2u);
  CHECK_EQ(c.shared_wavefronts, 2u);
  CHECK_EQ(c.warp_instructions, 18u);
  CHECK_EQ(c.thread_instructions, 17u * 32 + 16);
}

TEST("ptxsim counters: bank conflicts of a stride of two and of 32 words") {
  const auto waves = [](const std::string& scale) {
    Simulation s(kernel(
        "mul.lo.u32 %n, %t, " + scale +
        ";\nand.b32 %n, %n, 1020;\nmov.u32 %s, sm;\nadd.u32 %s, %s, %n;\natom.shared.exch.b32 %r, [%s], 0;"));
    s.options.check_uninitialised = false;
    const uint64_t x = s.upload(std::vector<char>(1024, 0));
    const Counters c = s.launch("k", {1}, {32}, 0, x);
    CHECK_EQ(c.shared_ideal_wavefronts, 1u);
    return c.shared_wavefronts;
  };
  CHECK_EQ(waves("4"), 1u);
  CHECK_EQ(waves("8"), 2u);
  CHECK_EQ(waves("128"), 8u);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
