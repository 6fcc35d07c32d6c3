// SPDX-License-Identifier: Apache-2.0
// The kernel text around a form, the values it gets and the comparison.
#include "forms.h"

#include <cmath>
#include <random>

#include "simulate.h"

namespace maestrale::ptxsim::test {
namespace {

constexpr int kThreads = 96;  // three warps: full masks, and with `odd` partial ones
constexpr int kBlocks = 12;

const char* register_type(Type t) {
  switch (type_bytes(t)) {
    case 0: return ".pred";
    case 1:
    case 2: return ".b16";
    case 4: return ".b32";
    default: return ".b64";
  }
}

const char* load_type(Type t) {
  switch (type_bytes(t)) {
    case 1: return "u8";
    case 2: return "u16";
    case 4: return "u32";
    default: return "u64";
  }
}

// Predicates travel as 32-bit words.
std::string kernel(const Form& form, bool partial) {
  static const char* const names[] = {"a", "b", "c", "e"};
  std::string s =
      ".visible .entry k(.param .u64 in, .param .u64 out) {\n.reg .pred odd, q;\n.reg .b32 t, n, bid, "
      "w;\n.reg "
      ".b64 i, o, x;\n";
  s += std::string(".reg ") + register_type(form.d) + " d;\n";
  for (size_t k = 0; k < form.inputs.size(); ++k)
    s += std::string(".reg ") + register_type(form.inputs[k]) + " " + names[k] + ";\n";
  s += "ld.param.u64 i, [in];\nld.param.u64 o, [out];\nmov.u32 t, %tid.x;\nmov.u32 n, %ntid.x;\nmov.u32 bid, "
       "%ctaid.x;\n"
       "mad.lo.s32 t, bid, n, t;\nmul.wide.u32 x, t, 32;\nadd.s64 i, i, x;\nmul.wide.u32 x, t, 8;\nadd.s64 "
       "o, o, x;\n";
  for (size_t k = 0; k < form.inputs.size(); ++k) {
    const std::string at = "[i+" + std::to_string(8 * k) + "]";
    if (form.inputs[k] == Type::kPred)
      s += "ld.global.u32 w, " + at + ";\nsetp.ne.u32 " + names[k] + ", w, 0;\n";
    else
      s += std::string("ld.global.") + load_type(form.inputs[k]) + " " + names[k] + ", " + at + ";\n";
  }
  s += form.d == Type::kPred     ? "setp.ne.u32 d, t, t;\n"
       : type_bytes(form.d) <= 2 ? "mov.b16 d, 0;\n"
       : type_bytes(form.d) == 4 ? "mov.b32 d, 0;\n"
                                 : "mov.b64 d, 0;\n";
  s += "and.b32 w, t, 1;\nsetp.ne.u32 odd, w, 0;\n";
  std::string text = form.text;
  if (partial)
    for (size_t at = 0; at < text.size();
         at = text.find(';', at) == text.npos ? text.size() : text.find(';', at) + 1)
      if (text.find(';', at) != text.npos) text.insert(at, "@odd "), at += 5;
  s += text + "\n";
  if (form.d == Type::kPred)
    s += "selp.u32 w, 1, 0, d;\nst.global.u32 [o], w;\n";
  else
    s += std::string("st.global.") + (type_bytes(form.d) == 1 ? "u16" : load_type(form.d)) + " [o], d;\n";
  return module_text(s + "ret;\n}\n");
}

bool equal(const Form& form, Bits want, Bits got) {
  if (want == got) return true;
  if (form.tolerance == 0) return false;
  const double w = form.d == Type::kF64 ? as<double>(want) : as<float>(want);
  const double g = form.d == Type::kF64 ? as<double>(got) : as<float>(got);
  if (w != w || g != g || std::isinf(w) || std::isinf(g)) return false;
  return std::fabs(w - g) <= form.tolerance * std::fabs(w) + (form.d == Type::kF64 ? 0x1p-1074 : 0x1p-149);
}

void check_form(const Form& form, bool partial) {
  std::mt19937_64 random(form.text.size() * 7919);
  const size_t n = size_t(kThreads) * kBlocks;
  std::vector<Bits> in(n * 4, 0);
  for (size_t t = 0; t < n; ++t)
    for (size_t k = 0; k < form.inputs.size(); ++k) {
      const Type type = form.inputs[k];
      const std::vector<Bits> edges = edge_values(type);
      const int bytes = type == Type::kPred ? 4 : type_bytes(type);
      Bits v = random() % 4 ? edges[random() % edges.size()] : random();
      if (type == Type::kPred) v &= 1;
      if (bytes < 8) v &= (Bits{1} << (8 * bytes)) - 1;
      in[t * 4 + k] = v;
    }
  Simulation s(kernel(form, partial));
  const uint64_t in_at = s.upload(in), out_at = s.upload(std::vector<Bits>(n, 0));
  s.launch("k", {kBlocks}, {kThreads}, 0, in_at, out_at);
  const std::vector<Bits> out = s.download<Bits>(out_at, n);
  for (size_t t = 0; t < n; ++t) {
    const Bits want =
        partial && t % 2 == 0 ? 0 : form.oracle(in[t * 4], in[t * 4 + 1], in[t * 4 + 2], in[t * 4 + 3]);
    if (equal(form, want, out[t])) continue;
    char text[200];
    std::snprintf(text, sizeof text, ": a %llx b %llx c %llx e %llx want %llx got %llx",
                  (unsigned long long)in[t * 4], (unsigned long long)in[t * 4 + 1],
                  (unsigned long long)in[t * 4 + 2], (unsigned long long)in[t * 4 + 3],
                  (unsigned long long)want, (unsigned long long)out[t]);
    throw std::runtime_error(form.text + (partial ? " (partial mask)" : "") + text);
  }
}

}  // namespace

std::vector<Bits> edge_values(Type type) {
  std::vector<Bits> v;
  if (type == Type::kF32) {
    for (const float x : {0.0f,
                          1.0f,
                          0.5f,
                          1.5f,
                          2.5f,
                          3.0f,
                          1e-30f,
                          1e30f,
                          0x1p-126f,
                          0x1p-149f,
                          0x1.fffffep-127f,
                          0x1.fffffep127f,
                          INFINITY,
                          NAN,
                          0x1p23f,
                          0x1.000002p0f,
                          65504.0f,
                          65520.0f,
                          0x1p31f,
                          0x1p32f,
                          127.5f,
                          0x1p-24f,
                          0x1p63f,
                          1e10f,
                          0x1.004p0f,
                          0x1.00cp0f,
                          0x1.01p0f,
                          0x1.03p0f})
      for (const float y : {x, -x}) v.push_back(bits_of(y));
    return v;
  }
  if (type == Type::kF64) {
    for (const double x : {0.0,          1.0,
                           0.5,          1.5,
                           2.5,          3.0,
                           1e-300,       1e300,
                           0x1p-1022,    0x1p-1074,
                           0x1p-149,     0x1p-150,
                           0x1.8p-150,   double(INFINITY),
                           double(NAN),  0x1p52,
                           0x1.000001p0, 0x1.0000008p0,
                           3e38,         0x1.ffffffp127,
                           0x1p31,       0x1p32,
                           0x1p63,       0x1p64,
                           1e10})
      for (const double y : {x, -x}) v.push_back(bits_of(y));
    return v;
  }
  if (type == Type::kF16 || type == Type::kBf16 || type == Type::kF16x2 || type == Type::kBf16x2) {
    const Bits half[] = {0,      1,      2,      0x3ff,  0x400,  0x401,  0x3800, 0x3c00, 0x3c01,
                         0x3e00, 0x4000, 0x7bff, 0x7c00, 0x7e00, 0x7f,   0x80,   0x81,   0x3f80,
                         0x3f81, 0x4049, 0x7f7f, 0x7f80, 0x7fc0, 0x5140, 0x2e66};
    for (const Bits a : half)
      for (const Bits sign : {Bits{0}, Bits{0x8000}}) {
        if (type == Type::kF16 || type == Type::kBf16)
          v.push_back(a | sign);
        else
          for (const Bits b : half) v.push_back((a | sign) << 16 | (b ^ (sign >> 1 & 0x8000)));
      }
    return v;
  }
  const int bits = type == Type::kPred ? 1 : 8 * type_bytes(type);
  for (int k = 0; k < bits; ++k)
    for (const Bits x : {Bits{1} << k, (Bits{1} << k) - 1, (Bits{1} << k) + 1, ~(Bits{1} << k)})
      v.push_back(x);
  for (const Bits x :
       {Bits{0}, Bits{2}, Bits{3}, Bits{5}, Bits{7}, Bits{31}, Bits{32}, Bits{33}, Bits{63}, Bits{64},
        Bits{65}, ~Bits{0}, 0 - Bits{3}, Bits{0x80808080}, Bits{0x7f7f7f7f}, Bits{0x12345678}})
    v.push_back(x);
  return v;
}

void check_forms(const std::vector<Form>& forms) {
  for (const Form& form : forms)
    for (const bool partial : {false, true}) check_form(form, partial);
}

}  // namespace maestrale::ptxsim::test
