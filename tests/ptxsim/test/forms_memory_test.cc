// SPDX-License-Identifier: Apache-2.0
// Loads, stores and atomics of every width, on the word of memory that each thread has to itself ([o]);
// vectors, shuffles and reductions against their definitions.
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

// The words of `out` behind a kernel of one warp whose lanes have 16 bytes of `in` (i), of a shared array
// (sh) and of `out` (o) each.
std::vector<uint32_t> moved(const std::string& body, const std::vector<uint32_t>& in) {
  Simulation s(module_text(
      ".visible .entry k(.param .u64 in, .param .u64 out) {\n.shared .align 16 .b8 all[512];\n"
      ".reg .b32 r<4>, t, sh;\n.reg .f32 f<4>;\n.reg .b16 h<4>;\n.reg .b64 l, i, o, w;\nld.param.u64 i, [in];"
      "\nld.param.u64 o, [out];\ncvta.to.global.u64 i, i;\ncvta.to.global.u64 o, o;\nmov.u32 t, %tid.x;\n"
      "mov.u32 sh, all;\nmad.lo.u32 sh, t, 16, sh;\nmul.wide.u32 w, t, 16;\nadd.s64 i, i, w;\n"
      "add.s64 o, o, w;\n" +
      body + "\nret;\n}\n"));
  const uint64_t from = s.upload(in), to = s.upload(std::vector<uint32_t>(in.size(), 0));
  s.launch("k", {1}, {32}, 0, from, to);
  return s.download<uint32_t>(to, in.size());
}

TEST("ptxsim forms: ld and st of vectors, in global and shared memory, by every path of the caches") {
  std::vector<uint32_t> in(128);
  for (size_t i = 0; i < in.size(); ++i) in[i] = 0x3f800000u + uint32_t(i) * 0x01030507u;
  const auto list = [](const char* name, int n) {
    if (n == 1) return std::string(name) + "0";
    std::string s = "{";
    for (int k = 0; k < n; ++k) s += (k ? ", " : "") + std::string(name) + std::to_string(k);
    return s + "}";
  };
  const auto words = [](const std::string& op, const std::string& at, const char* name, int n) {
    std::string s;
    for (int k = 0; k < n; ++k) {
      const std::string reg = name + std::to_string(k), place = "[" + at + "+" + std::to_string(4 * k) + "]";
      s += op + (op[0] == 'l' ? reg + ", " + place : place + ", " + reg) + ";\n";
    }
    return s;
  };
  for (const int n : {1, 2, 4})
    for (const std::string type : {"u32", "s32", "f32", "b32"}) {
      const char* name = type == "f32" ? "f" : "r";
      const std::string v = n == 1 ? "" : ".v" + std::to_string(n), form = v + "." + type + " ";
      std::vector<uint32_t> want(in.size());
      for (size_t k = 0; k < in.size(); ++k) want[k] = int(k % 4) < n ? in[k] : 0;
      // Each form against single words, which have a test of their own.
      std::vector<std::string> bodies;
      for (const char* cache : {"", ".nc", ".cg", ".ca", ".cs"})
        bodies.push_back("ld.global" + std::string(cache) + form + list(name, n) + ", [i];\n" +
                         words("st.global.b32 ", "o", name, n));
      for (const char* cache : {"", ".cg"})
        bodies.push_back(words("ld.global.b32 ", "i", name, n) + "st.global" + std::string(cache) + form +
                         "[o], " + list(name, n) + ";");
      bodies.push_back(words("ld.global.b32 ", "i", name, n) + "st.shared" + form + "[sh], " + list(name, n) +
                       ";\n" + words("ld.shared.b32 ", "sh", name, n) +
                       words("st.global.b32 ", "o", name, n));
      bodies.push_back(words("ld.global.b32 ", "i", name, n) + words("st.shared.b32 ", "sh", name, n) +
                       "ld.shared" + form + list(name, n) + ", [sh];\n" +
                       words("st.global.b32 ", "o", name, n));
      for (const std::string& body : bodies)
        if (moved(body, in) != want) maestrale::test::fail(__FILE__, __LINE__, body);
    }
  // Bytes, halves and double words.
  std::vector<uint32_t> bytes(in.size()), doubles(in.size());
  for (size_t k = 0; k < in.size(); ++k) {
    bytes[k] = k % 4 == 0 ? in[k] >> 16 & 255 : 0;
    doubles[k] = k % 4 < 2 ? in[k] : 0;
  }
  for (const std::string load :
       {"ld.global.nc.u8 h0, [i+2];",
        "ld.global.u8 h0, [i+2];\nst.shared.u8 [sh+5], h0;\nld.shared.u8 h0, [sh+5];",
        "ld.global.u32 r0, [i];\nst.shared.u32 [sh+4], r0;\nld.shared.v4.u8 {h1, h2, h0, h3}, [sh+4];",
        "ld.global.nc.u16 h0, [i+2];\nand.b16 h0, h0, 255;",
        "ld.global.s8 h0, [i+2];\ncvt.s16.s8 h0, h0;\nand.b16 h0, h0, 255;"})
    if (moved(load + "\ncvt.u32.u16 r0, h0;\nst.global.u32 [o], r0;", in) != bytes)
      maestrale::test::fail(__FILE__, __LINE__, load);
  CHECK(moved("ld.global.nc.u64 l, [i];\nst.global.u64 [o], l;", in) == doubles);
  for (const std::string type : {"u64", "f64"}) {
    CHECK(moved("ld.global.u64 l, [i];\nst.shared." + type + " [sh], l;\nld.shared.v2.u32 {r0, r1}, [sh];\n" +
                    "st.global.v2.u32 [o], {r0, r1};",
                in) == doubles);
    CHECK(moved("ld.global.v2.u32 {r0, r1}, [i];\nst.shared.v2.u32 [sh], {r0, r1};\nld.shared." + type +
                    " l, [sh];\nst.global.u64 [o], l;",
                in) == doubles);
  }
}

TEST("ptxsim forms: vectors of parameters, atomics of a block, barriers that count") {
  struct alignas(8) Parameter {
    uint32_t words[4];
    float value;
    int32_t last;
  };
  Simulation s(module_text(R"(
      .visible .entry k(.param .align 8 .b8 p[24], .param .u64 out) {
        .shared .align 4 .b8 top[4];
        .shared .align 4 .b8 sum[4];
        .reg .b32 a, b, c, m, t, n, x;
        .reg .f32 f;
        .reg .b64 o, w;
        .reg .pred q, z;
        ld.param.u64 o, [out];
        mov.u32 t, %tid.x;
        mul.wide.u32 w, t, 16;
        add.s64 o, o, w;
        ld.param.v2.u32 {a, b}, [p+8];
        ld.param.f32 f, [p+16];
        ld.param.s32 m, [p+20];
        setp.eq.u32 z, t, 0;
        @z st.shared.u32 [top], 7;
        @z st.shared.u32 [sum], 5;
        bar.sync 0;
        mad.lo.u32 x, t, 0x9e3779b9, 12345;
        atom.shared.max.u32 c, [top], x;
        atom.shared.add.u32 c, [sum], t;
        rem.u32 n, t, 3;
        setp.eq.u32 q, n, 0;
        bar.red.popc.u32 n, 0, q;
        ld.shared.u32 x, [top];
        ld.shared.u32 c, [sum];
        mad.lo.u32 n, c, 100, n;
        sub.u32 b, b, a;
        add.u32 b, b, m;
        st.global.v2.u32 [o], {b, n};
        st.global.f32 [o+8], f;
        st.global.u32 [o+12], x;
        ret;
      }
      )"));
  const uint64_t out = s.upload(std::vector<uint32_t>(96 * 4, 0));
  s.launch("k", {1}, {96}, 0, Parameter{{1, 2, 30, 400}, 1.5f, -9}, out);
  uint32_t top = 7;
  for (uint32_t t = 0; t < 96; ++t) top = std::max(top, t * 0x9e3779b9u + 12345);
  const auto got = s.download<uint32_t>(out, 96 * 4);
  for (size_t t = 0; t < 96; ++t) {
    CHECK_EQ(got[4 * t], 361u);
    CHECK_EQ(got[4 * t + 1], (5 + 95 * 96 / 2) * 100u + 32);
    CHECK_EQ(got[4 * t + 2], uint32_t(bits_of(1.5f)));
    CHECK_EQ(got[4 * t + 3], top);
  }
}

}  // namespace
}  // namespace maestrale::ptxsim::test
