// SPDX-License-Identifier: Apache-2.0
// Control flow: divergence and reconvergence, loops with lane-wise trip counts, calls, predicated
// exits, and block orders that are not topological.
#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

// A kernel over `out[tid]`: %t is the thread's number, %o the address, the result goes to %r.
std::string kernel(const std::string& body, const std::string& before = "") {
  return module_text(before +
                     ".visible .entry k(.param .u64 out) {\n.reg .b32 %t, %r, %x, %y;\n.reg .b64 %o, "
                     "%s;\n.reg .pred %p, %q;\n"
                     "ld.param.u64 %o, [out];\nmov.u32 %t, %tid.x;\nmul.wide.u32 %s, %t, 4;\nadd.s64 %o, %o, "
                     "%s;\nmov.u32 %r, 0;\n" +
                     body + "\nEND: st.global.u32 [%o], %r;\nret;\n}\n");
}

std::vector<uint32_t> run(const std::string& text, uint32_t threads = 64) {
  std::vector<uint32_t> first;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Simulation s(text);
    s.options.seed = seed;
    const uint64_t out = s.upload(std::vector<uint32_t>(threads, 0xffffffff));
    s.launch("k", {1}, {threads}, 0, out);
    const auto got = s.download<uint32_t>(out, threads);
    if (seed > 1) CHECK(got == first);
    first = got;
  }
  return first;
}

TEST("ptxsim control: both sides of a branch, then together") {
  const auto r = run(kernel(
      "and.b32 %x, %t, 1;\nsetp.eq.u32 %p, %x, 0;\n@%p bra EVEN;\nadd.u32 %r, %t, 100;\nbra.uni JOIN;\n"
      "EVEN: add.u32 %r, %t, 200;\nJOIN: vote.sync.ballot.b32 %y, %p, -1;\nadd.u32 %r, %r, %y;"));
  for (uint32_t t = 0; t < 64; ++t) CHECK_EQ(r[t], t + (t % 2 ? 100 : 200) + 0x55555555u);
}

TEST("ptxsim control: a loop with another trip count in every lane") {
  const auto r =
      run(kernel("mov.u32 %x, 0;\nLOOP: setp.ge.u32 %p, %x, %t;\n@%p bra DONE;\nadd.u32 %r, %r, %x;\nadd.u32 "
                 "%x, %x, 1;\nbra LOOP;\n"
                 "DONE: shfl.sync.idx.b32 %y, %r, 31, 31, -1;\nadd.u32 %r, %r, %y;"));
  for (uint32_t t = 0; t < 64; ++t) {
    const uint32_t last = t / 32 * 32 + 31;
    CHECK_EQ(r[t], t * (t - 1) / 2 + last * (last - 1) / 2);
  }
}

TEST("ptxsim control: nested divergence and a join placed before its sides") {
  const auto r =
      run(kernel("bra.uni START;\nJOIN: add.u32 %r, %r, 1000;\nvote.sync.all.pred %q, %p, -1;\nbra.uni END;\n"
                 "START: and.b32 %x, %t, 3;\nsetp.lt.u32 %p, %x, 2;\n@%p bra LOW;\nsetp.eq.u32 %q, %x, "
                 "2;\n@%q bra TWO;\n"
                 "mov.u32 %r, 3;\nsetp.eq.u32 %p, 1, 1;\nbra.uni JOIN;\nTWO: mov.u32 %r, 2;\nsetp.eq.u32 %p, "
                 "1, 1;\nbra.uni JOIN;\n"
                 "LOW: mov.u32 %r, %x;\nbra.uni JOIN;"));
  for (uint32_t t = 0; t < 64; ++t) CHECK_EQ(r[t], 1000 + t % 4);
}

TEST("ptxsim control: lanes that leave early do not hold up the others") {
  const auto r =
      run(kernel("setp.lt.u32 %p, %t, 5;\n@%p exit;\nbar.sync 0;\nvote.sync.ballot.b32 %r, 1, -1;"), 40);
  for (uint32_t t = 0; t < 40; ++t) CHECK_EQ(r[t], t < 5 ? 0xffffffffu : t < 32 ? 0xffffffe0u : 0xffu);
}

TEST("ptxsim control: warp barriers join different places, collectives wait for the lanes they name") {
  const auto r =
      run(kernel("setp.lt.u32 %p, %t, 16;\n@%p bra LOW;\nbar.warp.sync -1;\nmov.u32 %r, 1;\nbra.uni JOIN;\n"
                 "LOW: bar.warp.sync -1;\nmov.u32 %r, 2;\nJOIN: redux.sync.add.u32 %x, %r, -1;\nadd.u32 %r, "
                 "%r, %x;"),
          32);
  for (uint32_t t = 0; t < 32; ++t) CHECK_EQ(r[t], 48 + (t < 16 ? 2u : 1u));
}

TEST("ptxsim control: a call, with parameters, a result and a divergent return") {
  const std::string function =
      ".func (.param .b32 result) f(.param .b32 a, .param .b64 b) {\n.reg .b32 %a;\n.reg .b64 %b;\n.reg "
      ".pred %p;\n"
      "ld.param.u32 %a, [a];\nld.param.u64 %b, [b];\nsetp.gt.u32 %p, %a, 10;\n@%p bra BIG;\nst.param.b32 "
      "[result], %a;\nret;\n"
      "BIG: cvt.u32.u64 %a, %b;\nst.param.b32 [result], %a;\nret;\n}\n";
  const auto r = run(kernel(
      "cvt.u64.u32 %s, %t;\nadd.s64 %s, %s, 500;\n{\n.param .b32 p0;\nst.param.b32 [p0], %t;\n.param .b64 "
      "p1;\n"
      "st.param.b64 [p1], %s;\n.param .b32 r0;\ncall.uni (r0), f, (p0, p1);\nld.param.b32 %r, [r0];\n}\n"
      "vote.sync.ballot.b32 %x, 1, -1;\nadd.u32 %r, %r, %x;",
      function));
  for (uint32_t t = 0; t < 64; ++t) CHECK_EQ(r[t], (t > 10 ? t + 500 : t) - 1);
}

TEST("ptxsim control: recursion and unknown words are errors with their line") {
  const auto line_of = [](const std::string& text) {
    try {
      Simulation s(text);
      s.program("k");
    } catch (const PtxError& error) {
      return error.line();
    }
    return -1;
  };
  CHECK_EQ(line_of(kernel("frobnicate.b32 %r, %t;")), 13);
  CHECK_EQ(line_of(kernel("\nadd.huge.s32 %r, %t, 1;")), 14);
  CHECK_EQ(line_of(kernel("add.s64 %r, %t, 1;")), 13);
  CHECK_EQ(line_of(kernel("bra NOWHERE;")), 13);
  CHECK_EQ(line_of(kernel("ld.global.u32.oops %r, [%o];")), 13);
  CHECK_EQ(line_of(kernel("call.uni f;", ".func f() {\ncall.uni f;\nret;\n}\n")), 4);
}

TEST("ptxsim control: a name of inline assembly shadows the outer one") {
  const auto r = run(kernel(
      "mov.u32 %x, 7;\n{\n.reg .b32 %x;\nmov.u32 %x, %t;\nadd.u32 %r, %x, 1;\n}\nadd.u32 %r, %r, %x;"));
  for (uint32_t t = 0; t < 64; ++t) CHECK_EQ(r[t], t + 8);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
