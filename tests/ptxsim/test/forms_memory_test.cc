// SPDX-License-Identifier: Apache-2.0
// Loads, stores and atomics of every width, on the word of memory that each thread has to itself ([o]);
// shuffles, reductions and integer mma against their definitions.
#include <algorithm>
#include <functional>

#include "forms.h"
#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

template <class T>
Form load(const std::string& type, Type d, int at) {
  return {
      "st.global.u64 [o], a; ld.global." + type + " d, [o+" + std::to_string(at) + "]; st.global.u64 [o], 0;",
      d,
      {Type::kU64},
      [at, d](Bits a, Bits, Bits, Bits) {
        const Bits value = Bits(int64_t(T(a >> (8 * at))));
        return type_bytes(d) == 8 ? value : value & ((Bits{1} << (8 * type_bytes(d))) - 1);
      }};
}

TEST("ptxsim forms: ld and st of every width, wider registers, vectors") {
  std::vector<Form> f = {load<uint8_t>("u8", Type::kU16, 3),
                         load<int8_t>("s8", Type::kU32, 1),
                         load<uint8_t>("b8", Type::kU64, 7),
                         load<uint16_t>("u16", Type::kU16, 2),
                         load<int16_t>("s16", Type::kU32, 4),
                         load<uint32_t>("u32", Type::kU32, 4),
                         load<int32_t>("s32", Type::kU64, 4),
                         load<uint32_t>("nc.b32", Type::kU32, 0),
                         load<uint64_t>("u64", Type::kU64, 0),
                         load<uint32_t>("cs.f32", Type::kF32, 4),
                         load<int32_t>("L1::no_allocate.s32", Type::kS32, 0)};
  const Type u32 = Type::kU32, u64 = Type::kU64;
  f.push_back({"st.global.u64 [o], a; st.global.u8 [o+2], b; ld.global.u64 d, [o];",
               u64,
               {u64, u64},
               [](Bits a, Bits b, Bits, Bits) { return (a & ~Bits{0xff0000}) | (b & 255) << 16; }});
  f.push_back({"st.global.u64 [o], a; st.global.u32 [o+4], b; ld.global.u64 d, [o];",
               u64,
               {u64, u64},
               [](Bits a, Bits b, Bits, Bits) { return (a & 0xffffffff) | b << 32; }});
  f.push_back({"st.global.v2.u32 [o], {a, b}; ld.global.u64 d, [o];",
               u64,
               {u32, u32},
               [](Bits a, Bits b, Bits, Bits) { return b << 32 | a; }});
  f.push_back({"st.global.u64 [o], a; ld.global.v2.u32 {d, b}, [o]; st.global.u64 [o], 0;",
               u32,
               {u64, u32},
               [](Bits a, Bits, Bits, Bits) { return a & 0xffffffff; }});
  f.push_back({"st.global.u64 [o], a; ld.global.v4.u16 {_, _, d, _}, [o]; st.global.u64 [o], 0;",
               Type::kU16,
               {u64},
               [](Bits a, Bits, Bits, Bits) { return a >> 32 & 0xffff; }});
  f.push_back(
      {"st.u64 [o], a; ld.volatile.u64 d, [o];", u64, {u64}, [](Bits a, Bits, Bits, Bits) { return a; }});
  f.push_back({"st.release.gpu.global.u32 [o], a; ld.acquire.gpu.global.u32 d, [o];",
               u32,
               {u32},
               [](Bits a, Bits, Bits, Bits) { return a; }});
  check_forms(f);
}

template <class T>
void add_atomic(std::vector<Form>& f, const std::string& name, const std::string& type, Type t,
                std::function<T(T, T)> g) {
  const std::string store = "st.global.b" + std::to_string(8 * sizeof(T)) + " [o], a; ";
  f.push_back(
      {store + "atom.global." + name + "." + type + " d, [o], b;", t, {t, t}, [](Bits a, Bits, Bits, Bits) {
         return a;
       }});
  f.push_back({store + "red.global." + name + "." + type + " [o], b; ld.global.b" +
                   std::to_string(8 * sizeof(T)) + " d, [o];",
               t,
               {t, t},
               [g](Bits a, Bits b, Bits, Bits) { return bits_of(g(as<T>(a), as<T>(b))); }});
}

TEST("ptxsim forms: atom and red") {
  std::vector<Form> f;
  add_atomic<uint32_t>(f, "add", "u32", Type::kU32, [](uint32_t a, uint32_t b) { return a + b; });
  add_atomic<uint32_t>(f, "add", "s32", Type::kU32, [](uint32_t a, uint32_t b) { return a + b; });
  add_atomic<uint64_t>(f, "add", "u64", Type::kU64, [](uint64_t a, uint64_t b) { return a + b; });
  add_atomic<uint32_t>(f, "min", "u32", Type::kU32, [](uint32_t a, uint32_t b) { return std::min(a, b); });
  add_atomic<int32_t>(f, "min", "s32", Type::kS32, [](int32_t a, int32_t b) { return std::min(a, b); });
  add_atomic<int32_t>(f, "max", "s32", Type::kS32, [](int32_t a, int32_t b) { return std::max(a, b); });
  add_atomic<uint64_t>(f, "max", "u64", Type::kU64, [](uint64_t a, uint64_t b) { return std::max(a, b); });
  add_atomic<int64_t>(f, "min", "s64", Type::kS64, [](int64_t a, int64_t b) { return std::min(a, b); });
  add_atomic<uint32_t>(f, "and", "b32", Type::kB32, [](uint32_t a, uint32_t b) { return a & b; });
  add_atomic<uint32_t>(f, "or", "b32", Type::kB32, [](uint32_t a, uint32_t b) { return a | b; });
  add_atomic<uint64_t>(f, "xor", "b64", Type::kB64, [](uint64_t a, uint64_t b) { return a ^ b; });
  add_atomic<uint32_t>(f, "inc", "u32", Type::kU32,
                       [](uint32_t a, uint32_t b) { return a >= b ? 0 : a + 1; });
  add_atomic<uint32_t>(f, "dec", "u32", Type::kU32,
                       [](uint32_t a, uint32_t b) { return a == 0 || a > b ? b : a - 1; });
  const Type t = Type::kB32;
  f.push_back({"st.global.b32 [o], a; atom.global.exch.b32 d, [o], b; ld.global.b32 d, [o];",
               t,
               {t, t},
               [](Bits, Bits b, Bits, Bits) { return b; }});
  f.push_back({"st.global.b32 [o], a; atom.global.cas.b32 d, [o], b, c; ld.global.b32 d, [o];",
               t,
               {t, t, t},
               [](Bits a, Bits b, Bits c, Bits) { return a == b ? c : a; }});
  f.push_back({"st.global.b32 [o], a; atom.global.cas.b32 d, [o], a, c; ld.global.b32 d, [o];",
               t,
               {t, t, t},
               [](Bits, Bits, Bits c, Bits) { return c; }});
  check_forms(f);
}

// out[t] of a one-warp kernel that computes d from t.
std::vector<uint32_t> warp(const std::string& body) {
  Simulation s(
      module_text(".visible .entry k(.param .u64 out) {\n.reg .b32 t, d, x;\n.reg .b64 o, w;\n.reg .pred "
                  "p;\nld.param.u64 o, [out];\nmov.u32 t, %tid.x;\n"
                  "mul.wide.u32 w, t, 4;\nadd.s64 o, o, w;\nmad.lo.u32 x, t, 77, 1000;\n" +
                  body + "\nst.global.u32 [o], d;\nret;\n}\n"));
  const uint64_t out = s.upload(std::vector<uint32_t>(32, 0));
  s.launch("k", {1}, {32}, 0, out);
  return s.download<uint32_t>(out, 32);
}

TEST("ptxsim forms: shfl in all modes and widths") {
  for (const int width : {32, 16, 8, 4, 2})
    for (int by = 0; by < 32; ++by)
      for (const std::string mode : {"up", "down", "bfly", "idx"}) {
        const int c = (32 - width) << 8 | (mode == "up" ? 0 : 31);
        const auto got = warp("shfl.sync." + mode + ".b32 d|p, x, " + std::to_string(by) + ", " +
                              std::to_string(c) + ", -1;\n@!p add.u32 d, d, 1;");
        for (int t = 0; t < 32; ++t) {
          const int first = t / width * width, in = t - first;
          const int to = mode == "up"     ? in - by
                         : mode == "down" ? in + by
                         : mode == "bfly" ? (t ^ by) - first
                                          : by % width;
          // A butterfly may reach back into an earlier segment, not forward out of its own.
          const bool valid = mode == "bfly" ? to < width : to >= 0 && to < width;
          CHECK_EQ(got[size_t(t)], uint32_t(valid ? (first + to) * 77 + 1000 : t * 77 + 1001));
        }
      }
}

TEST("ptxsim forms: vote, match, redux, activemask") {
  CHECK_EQ(warp("and.b32 d, t, 3;\nmatch.any.sync.b32 d, d, -1;")[5], 0x22222222u);
  CHECK_EQ(warp("mov.u32 d, 7;\nmatch.all.sync.b32 d|p, d, -1;\n@!p mov.u32 d, 0;")[9], 0xffffffffu);
  CHECK_EQ(warp("match.all.sync.b32 d|p, t, -1;\n@p mov.u32 d, 5;")[9], 0u);
  CHECK_EQ(warp("redux.sync.add.u32 d, t, -1;")[3], 496u);
  CHECK_EQ(warp("sub.u32 d, t, 5;\nredux.sync.min.s32 d, d, -1;")[3], 0xfffffffbu);
  CHECK_EQ(warp("sub.u32 d, t, 5;\nredux.sync.max.u32 d, d, -1;")[3], 0xffffffffu);
  CHECK_EQ(warp("redux.sync.or.b32 d, t, -1;")[3], 31u);
  CHECK_EQ(warp("setp.gt.u32 p, t, 3;\nvote.sync.ballot.b32 d, p, -1;")[0], 0xfffffff0u);
  CHECK_EQ(warp("setp.gt.u32 p, t, 3;\nvote.sync.any.pred p, p, -1;\nselp.u32 d, 1, 0, p;")[0], 1u);
  CHECK_EQ(warp("setp.gt.u32 p, t, 3;\nvote.sync.all.pred p, p, -1;\nselp.u32 d, 1, 0, p;")[9], 0u);
  CHECK_EQ(warp("activemask.b32 d;")[9], 0xffffffffu);
}

TEST("ptxsim forms: mma on bytes, every element in its place") {
  for (const int m : {8, 16}) {
    const int k = m == 8 ? 16 : 32, na = m == 8 ? 1 : 4, nb = m == 8 ? 1 : 2, nd = m == 8 ? 2 : 4;
    const auto list = [](const char* name, int n) {
      std::string s = "{";
      for (int i = 0; i < n; ++i) s += (i ? ", " : "") + std::string(name) + std::to_string(i);
      return s + "}";
    };
    std::string text =
        ".visible .entry k(.param .u64 ab, .param .u64 out) {\n.reg .b32 t, a<4>, b<2>, d<4>;\n.reg .b64 i, "
        "o, w;\nld.param.u64 i, [ab];\nld.param.u64 o, [out];\n"
        "mov.u32 t, %tid.x;\nmul.wide.u32 w, t, 32;\nadd.s64 i, i, w;\nmul.wide.u32 w, t, 16;\nadd.s64 o, o, "
        "w;\n";
    for (int q = 0; q < na; ++q)
      text += "ld.global.u32 a" + std::to_string(q) + ", [i+" + std::to_string(4 * q) + "];\n";
    for (int q = 0; q < nb; ++q)
      text += "ld.global.u32 b" + std::to_string(q) + ", [i+" + std::to_string(16 + 4 * q) + "];\n";
    for (int q = 0; q < nd; ++q)
      text += "mov.u32 d" + std::to_string(q) + ", " + std::to_string(100 * q) + ";\n";
    text += "mma.sync.aligned." + std::string(m == 8 ? "m8n8k16" : "m16n8k32") + ".row.col.s32.s8.s8.s32 " +
            list("d", nd) + ", " + list("a", na) + ", " + list("b", nb) + ", " + list("d", nd) + ";\n";
    for (int q = 0; q < nd; ++q)
      text += "st.global.u32 [o+" + std::to_string(4 * q) + "], d" + std::to_string(q) + ";\n";
    Simulation s(module_text(text + "ret;\n}\n"));
    const auto a = [](int r, int c) { return int8_t(r * 31 + c * 17 - 100); };
    const auto b = [](int r, int c) { return int8_t(r * 13 - c * 29 + 50); };
    std::vector<int8_t> in(32 * 32);
    for (int lane = 0; lane < 32; ++lane)
      for (int j = 0; j < 4; ++j) {
        for (int q = 0; q < na; ++q)
          in[size_t(lane * 32 + q * 4 + j)] = a(lane / 4 + 8 * (q % 2), lane % 4 * 4 + j + 16 * (q / 2));
        for (int q = 0; q < nb; ++q)
          in[size_t(lane * 32 + 16 + q * 4 + j)] = b(lane % 4 * 4 + j + 16 * q, lane / 4);
      }
    const uint64_t ip = s.upload(in), op = s.upload(std::vector<int32_t>(128, 0));
    s.launch("k", {1}, {32}, 0, ip, op);
    const auto out = s.download<int32_t>(op, 128);
    for (int lane = 0; lane < 32; ++lane)
      for (int q = 0; q < nd; ++q) {
        int32_t sum = 100 * q;
        for (int i = 0; i < k; ++i) sum += a(lane / 4 + 8 * (q / 2), i) * b(i, lane % 4 * 2 + q % 2);
        CHECK_EQ(out[size_t(lane * 4 + q)], sum);
      }
  }
}

}  // namespace
}  // namespace maestrale::ptxsim::test
