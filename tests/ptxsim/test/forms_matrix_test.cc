// SPDX-License-Identifier: Apache-2.0
// mma and ldmatrix: every element in its place, by the fragment layouts of the PTX manual. Factors are small
// integers, so that every order and precision of the sum is exact.
#include "exec/numerics.h"
#include "forms.h"
#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

struct Shape {
  int m, k;
  std::string a, b, d;
};

std::string list(const char* name, int n) {
  std::string s = "{";
  for (int i = 0; i < n; ++i) s += (i ? ", " : "") + std::string(name) + std::to_string(i);
  return s + "}";
}

uint32_t element(const std::string& type, int value) {
  if (type == "f16") return to_half(value);
  if (type == "bf16") return to_bfloat(value);
  return uint32_t(value) & 255;
}

void check_mma(const Shape& shape) {
  const int bytes = shape.a[0] == 'f' || shape.a[0] == 'b' ? 2 : 1, per_word = 4 / bytes;
  const bool half_sums = shape.d == "f16";
  // Words of a lane: 8 rows of a and 4 * per_word columns, or so much of b, make one.
  const int row_words = shape.m / 8, na = row_words * shape.k / (4 * per_word), nb = shape.k / (4 * per_word),
            nd = half_sums ? row_words : 2 * row_words;
  std::string text =
      ".visible .entry k(.param .u64 ab, .param .u64 out) {\n.reg .b32 t, a<4>, b<2>, d<4>;\n.reg .b64 i, "
      "o, w;\nld.param.u64 i, [ab];\nld.param.u64 o, [out];\n"
      "mov.u32 t, %tid.x;\nmul.wide.u32 w, t, 32;\nadd.s64 i, i, w;\nmul.wide.u32 w, t, 16;\nadd.s64 o, o, "
      "w;\n";
  for (int q = 0; q < na; ++q)
    text += "ld.global.u32 a" + std::to_string(q) + ", [i+" + std::to_string(4 * q) + "];\n";
  for (int q = 0; q < nb; ++q)
    text += "ld.global.u32 b" + std::to_string(q) + ", [i+" + std::to_string(16 + 4 * q) + "];\n";
  // Sums start from 16 q.
  const auto start = [&](int q) {
    if (half_sums) return uint32_t(to_half(16 * q)) << 16 | to_half(16 * q);
    return shape.d == "f32" ? uint32_t(bits_of(16.0f * float(q))) : uint32_t(16 * q);
  };
  for (int q = 0; q < nd; ++q)
    text += "mov.b32 d" + std::to_string(q) + ", " + std::to_string(start(q)) + ";\n";
  text += "mma.sync.aligned.m" + std::to_string(shape.m) + "n8k" + std::to_string(shape.k) + ".row.col." +
          shape.d + "." + shape.a + "." + shape.b + "." + shape.d + " " + list("d", nd) + ", " +
          list("a", na) + ", " + list("b", nb) + ", " + list("d", nd) + ";\n";
  for (int q = 0; q < nd; ++q)
    text += "st.global.u32 [o+" + std::to_string(4 * q) + "], d" + std::to_string(q) + ";\n";
  Simulation s(module_text(text + "ret;\n}\n"));

  const int size = bytes == 2 ? 7 : 127;  // halves hold the sums of small ones
  const auto value = [&](const std::string& type, int seed) {
    return type[0] == 'u' ? seed * 37 % 256 : seed * 37 % (2 * size + 1) - size;
  };
  const auto a = [&](int r, int c) { return value(shape.a, r * 31 + c * 17 + 3); };
  const auto b = [&](int r, int c) { return value(shape.b, r * 13 + c * 29 + 50); };
  std::vector<uint32_t> in(32 * 8);
  for (int lane = 0; lane < 32; ++lane)
    for (int j = 0; j < per_word; ++j) {
      const int column = per_word * (lane % 4) + j;
      for (int q = 0; q < na; ++q)
        in[size_t(lane * 8 + q)] |=
            element(shape.a, a(lane / 4 + 8 * (q % row_words), column + 4 * per_word * (q / row_words)))
            << (8 * bytes * j);
      for (int q = 0; q < nb; ++q)
        in[size_t(lane * 8 + 4 + q)] |= element(shape.b, b(column + 4 * per_word * q, lane / 4))
                                        << (8 * bytes * j);
    }
  const uint64_t ip = s.upload(in), op = s.upload(std::vector<uint32_t>(128, 0));
  s.launch("k", {1}, {32}, 0, ip, op);
  const auto out = s.download<uint32_t>(op, 128);
  for (int lane = 0; lane < 32; ++lane)
    for (int e = 0; e < 2 * row_words; ++e) {  // rows l / 4 + 8 (e / 2), columns 2 (l % 4) + e % 2
      const int q = half_sums ? e / 2 : e;
      int want = 16 * q;
      for (int i = 0; i < shape.k; ++i) want += a(lane / 4 + 8 * (e / 2), i) * b(i, lane % 4 * 2 + e % 2);
      const uint32_t word = out[size_t(lane * 4 + q)];
      const int got = half_sums          ? int(from_half(uint16_t(word >> 16 * (e % 2))))
                      : shape.d == "f32" ? int(as<float>(word))
                                         : int(word);
      if (got != want)
        maestrale::test::fail(__FILE__, __LINE__,
                              "m" + std::to_string(shape.m) + "k" + std::to_string(shape.k) + " of " +
                                  shape.a + ", lane " + std::to_string(lane) + ": " + std::to_string(got) +
                                  " != " + std::to_string(want));
    }
}

TEST("ptxsim forms: mma on bytes, every element in its place") {
  for (const std::string a : {"s8", "u8"})
    for (const std::string b : {"s8", "u8"}) {
      check_mma({8, 16, a, b, "s32"});
      check_mma({16, 32, a, b, "s32"});
    }
  for (const std::string a : {"s8", "u8"}) check_mma({16, 16, a, "s8", "s32"});
}

TEST("ptxsim forms: mma on halves, every element in its place") {
  for (const int k : {8, 16}) {
    for (const std::string type : {"f16", "bf16"}) check_mma({16, k, type, type, "f32"});
    check_mma({16, k, "f16", "f16", "f16"});
  }
}

TEST("ptxsim forms: ldmatrix of one, two and four matrices, as they are and transposed") {
  for (const int n : {1, 2, 4})
    for (const bool transposed : {false, true}) {
      std::string text =
          ".visible .entry k(.param .u64 in, .param .u64 out) {\n.shared .align 16 .b8 all[512];\n.reg .b32 "
          "t, "
          "r<4>, at;\n.reg .b64 i, o, w;\nld.param.u64 i, [in];\nld.param.u64 o, [out];\nmov.u32 t, %tid.x;\n"
          "mov.u32 at, all;\nmad.lo.u32 at, t, 16, at;\nmul.wide.u32 w, t, 16;\nadd.s64 i, i, w;\n"
          "add.s64 o, o, w;\nld.global.v4.u32 {r0, r1, r2, r3}, [i];\nst.shared.v4.u32 [at], {r0, r1, r2, "
          "r3};"
          "\nbar.warp.sync -1;\nldmatrix.sync.aligned.m8n8.x" +
          std::to_string(n) + (transposed ? ".trans" : "") + ".shared.b16 " + list("r", n) + ", [at];\n";
      for (int q = 0; q < n; ++q)
        text += "st.global.u32 [o+" + std::to_string(4 * q) + "], r" + std::to_string(q) + ";\n";
      Simulation s(module_text(text + "ret;\n}\n"));
      std::vector<uint16_t> in(256);  // element c of row r of matrix q: 64 q + 8 r + c
      for (size_t e = 0; e < in.size(); ++e) in[e] = uint16_t(1000 + e);
      const uint64_t ip = s.upload(in), op = s.upload(std::vector<uint32_t>(128, 0));
      s.launch("k", {1}, {32}, 0, ip, op);
      const auto out = s.download<uint32_t>(op, 128);
      for (int lane = 0; lane < 32; ++lane)
        for (int q = 0; q < n; ++q) {
          const int row = lane / 4, column = lane % 4 * 2;
          const auto at = [&](int r, int c) {
            return uint32_t(1000 + 64 * q + (transposed ? 8 * c + r : 8 * r + c));
          };
          CHECK_EQ(out[size_t(lane * 4 + q)], at(row, column + 1) << 16 | at(row, column));
        }
    }
}

}  // namespace
}  // namespace maestrale::ptxsim::test
