// SPDX-License-Identifier: Apache-2.0
// nvcc's own PTX for four architectures, and the mutator: PTX with one synchronisation deleted or one
// comparison flipped or taken one step further must be caught, by a check or by its result.
#include "kernels.h"

#include <chrono>
#include <cstdio>

#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

TEST("ptxsim kernels: results are right for every architecture, schedule, copy mode and accumulation") {
  for (const int arch : kernel_archs()) {
    const std::string ptx = kernel_text(arch);
    for (const KernelCase& c : kernel_cases()) {
      if (arch < c.min_arch) continue;
      for (const AsyncCopy copy : {AsyncCopy::kLazy, AsyncCopy::kEager, AsyncCopy::kRandom})
        for (const Accumulate sum : {Accumulate::kFloat, Accumulate::kDouble, Accumulate::kTruncate}) {
          Options o;
          o.seed = uint64_t(arch) + uint64_t(sum);
          o.async_copy = copy;
          o.accumulate = sum;
          if (!c.run(ptx, o))
            maestrale::test::fail(__FILE__, __LINE__,
                                  std::string(c.name) + " for compute_" + std::to_string(arch));
        }
    }
  }
}

struct Mutant {
  std::string what, text;
  // Traps where the change could be seen for the first time: what survives this is never executed, or never
  // compares equals where the change is about equals.
  std::string with_trap;
};

// The lines of one entry of a module, changed in one place each.
std::vector<Mutant> mutants(const std::string& ptx, const std::string& entry) {
  std::vector<Mutant> all;
  const size_t begin = ptx.find(".entry " + entry + "("), end = ptx.find("\n}\n", begin);
  const auto change = [&](size_t at, size_t length, const std::string& to, const std::string& what,
                          const std::string& trap_line = "trap;") {
    std::string text = ptx;
    text.replace(at, length, to);
    const size_t first = ptx.rfind('\n', at - 1) + 1;
    std::string trap = ptx;
    trap.replace(first, ptx.find('\n', at) - first, trap_line);
    all.push_back({entry + ": " + what, std::move(text), std::move(trap)});
  };
  const std::pair<const char*, const char*> steps[] = {
      {"setp.lt.", "setp.le."}, {"setp.le.", "setp.lt."}, {"setp.gt.", "setp.ge."}, {"setp.ge.", "setp.gt."}};
  const std::pair<const char*, const char*> flips[] = {{"setp.lt.", "setp.ge."}, {"setp.le.", "setp.gt."},
                                                       {"setp.gt.", "setp.le."}, {"setp.ge.", "setp.lt."},
                                                       {"setp.eq.", "setp.ne."}, {"setp.ne.", "setp.eq."}};
  for (size_t line = begin; line < end; line = ptx.find('\n', line) + 1) {
    const size_t stop = ptx.find('\n', line);
    const std::string text = ptx.substr(line, stop - line);
    for (const char* sync :
         {"bar.sync", "bar.warp.sync", "barrier.sync", "cp.async.wait", "cp.async.commit", "membar"})
      if (text.find(sync) != text.npos && text.find(';') != text.npos)
        change(line, stop - line, "", "deleted" + text);
    for (const auto& [from, to] : flips) {
      const size_t at = text.find(from);
      if (at != text.npos) change(line + at, std::string(from).size(), to, "flipped" + text);
    }
    for (const auto& [from, to] : steps) {
      const size_t at = text.find(from);
      if (at == text.npos) continue;
      // setp.lt.s32 %p1, %r1, %r2;
      const size_t type = at + std::string(from).size(), operands = text.find(',');
      const std::string equal = "{ .reg .pred %equal; setp.eq." +
                                text.substr(type, text.find_first_of(" \t", type) - type) + " %equal" +
                                text.substr(operands) + " @%equal trap; }\n";
      change(line + at, std::string(from).size(), to, "one step further" + text, equal + text);
    }
  }
  return all;
}

bool is_killed(const KernelCase& c, const std::string& text) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Options o;
    o.seed = seed;
    o.max_turns = 64;
    o.async_copy = seed % 2 ? AsyncCopy::kLazy : AsyncCopy::kEager;
    try {
      if (!c.run(text, o)) return true;
    } catch (const Fault&) {
      return true;
    }
  }
  return false;
}

TEST("ptxsim mutants: at least 95 of 100 are killed") {
  size_t total = 0, killed = 0;
  std::string survivors;
  for (const int arch : kernel_archs()) {
    const std::string ptx = kernel_text(arch);
    for (const KernelCase& c : kernel_cases()) {
      if (arch < c.min_arch) continue;
      for (const Mutant& m : mutants(ptx, c.name)) {
        if (!is_killed(c, m.with_trap)) continue;
        ++total;
        if (is_killed(c, m.text))
          ++killed;
        else
          survivors += "\n  compute_" + std::to_string(arch) + " " + m.what;
      }
    }
  }
  std::printf("%zu of %zu mutants killed%s\n", killed, total, survivors.c_str());
  CHECK(total > 100);
  CHECK(killed * 100 >= total * 95);
}

TEST("ptxsim speed: thread-instructions a second of an integer kernel") {
  Simulation s(kernel_text(80));
  const uint64_t out = s.reserve<uint32_t>(16 * 256);
  const auto start = std::chrono::steady_clock::now();
  const Counters c = s.launch("spin_int", {16}, {256}, 0, out, 400);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%.2f G thread-instructions/s, %llu in %.3f s\n",
              double(c.thread_instructions) / seconds * 1e-9,
              static_cast<unsigned long long>(c.thread_instructions), seconds);
  CHECK(c.thread_instructions > 10'000'000);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
