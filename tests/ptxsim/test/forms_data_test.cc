// SPDX-License-Identifier: Apache-2.0
// Comparisons, selections, conversions, moves, form by form.
#include <algorithm>
#include <cfenv>
#include <cmath>

#include "check.h"
#include "forms.h"

namespace maestrale::ptxsim::test {
namespace {

template <class T>
bool compare(const std::string& name, T a, T b) {
  const bool unordered = a != a || b != b;
  if (name == "num") return !unordered;
  if (name == "nan") return unordered;
  if (name.size() == 3) return unordered || compare<T>(name.substr(0, 2), a, b);
  if (unordered) return false;
  if (name == "eq") return a == b;
  if (name == "ne") return a != b;
  if (name == "lt" || name == "lo") return a < b;
  if (name == "le" || name == "ls") return a <= b;
  if (name == "gt" || name == "hi") return a > b;
  return a >= b;
}

template <class T>
void add_comparisons(std::vector<Form>& f, const std::string& suffix, Type type,
                     std::vector<std::string> names) {
  for (const std::string& n : names) {
    const auto holds = [n](Bits a, Bits b) { return compare<T>(n, as<T>(a), as<T>(b)); };
    f.push_back({"setp." + n + "." + suffix + " d, a, b;",
                 Type::kPred,
                 {type, type},
                 [=](Bits a, Bits b, Bits, Bits) { return Bits(holds(a, b)); }});
    f.push_back({"setp." + n + ".and." + suffix + " d, a, b, c;",
                 Type::kPred,
                 {type, type, Type::kPred},
                 [=](Bits a, Bits b, Bits c, Bits) { return Bits(holds(a, b) && c); }});
    f.push_back({"setp." + n + ".xor." + suffix + " d, a, b, !c;",
                 Type::kPred,
                 {type, type, Type::kPred},
                 [=](Bits a, Bits b, Bits c, Bits) { return Bits(holds(a, b)) ^ c ^ 1; }});
    f.push_back({"setp." + n + ".or." + suffix + " q|d, a, b, c;",
                 Type::kPred,
                 {type, type, Type::kPred},
                 [=](Bits a, Bits b, Bits c, Bits) { return Bits(!holds(a, b) || c); }});
    f.push_back({"set." + n + ".u32." + suffix + " d, a, b;",
                 Type::kU32,
                 {type, type},
                 [=](Bits a, Bits b, Bits, Bits) { return Bits(holds(a, b) ? 0xffffffff : 0); }});
    f.push_back({"set." + n + ".f32." + suffix + " d, a, b;",
                 Type::kF32,
                 {type, type},
                 [=](Bits a, Bits b, Bits, Bits) { return holds(a, b) ? bits_of(1.0f) : 0; }});
  }
}

TEST("ptxsim forms: setp, set") {
  const std::vector<std::string> some = {"eq", "ne", "lt", "le", "gt", "ge"}, bits = {"eq", "ne"};
  std::vector<std::string> of_unsigned = some, floats = some;
  for (const char* n : {"lo", "ls", "hi", "hs"}) of_unsigned.push_back(n);
  for (const char* n : {"equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"}) floats.push_back(n);
  std::vector<Form> f;
  add_comparisons<uint16_t>(f, "u16", Type::kU16, of_unsigned);
  add_comparisons<int16_t>(f, "s16", Type::kS16, some);
  add_comparisons<uint32_t>(f, "u32", Type::kU32, of_unsigned);
  add_comparisons<int32_t>(f, "s32", Type::kS32, some);
  add_comparisons<uint64_t>(f, "u64", Type::kU64, of_unsigned);
  add_comparisons<int64_t>(f, "s64", Type::kS64, some);
  add_comparisons<uint16_t>(f, "b16", Type::kB16, bits);
  add_comparisons<uint32_t>(f, "b32", Type::kB32, bits);
  add_comparisons<uint64_t>(f, "b64", Type::kB64, bits);
  add_comparisons<float>(f, "f32", Type::kF32, floats);
  add_comparisons<double>(f, "f64", Type::kF64, floats);
  add_comparisons<_Float16>(f, "f16", Type::kF16, floats);
  check_forms(f);
}

TEST("ptxsim forms: selp, slct, mov, packing and unpacking") {
  const Type p = Type::kPred;
  std::vector<Form> f;
  for (const auto& [name, type] : std::vector<std::pair<std::string, Type>>{{"b16", Type::kB16},
                                                                            {"u16", Type::kU16},
                                                                            {"b32", Type::kB32},
                                                                            {"s32", Type::kS32},
                                                                            {"f32", Type::kF32},
                                                                            {"b64", Type::kB64},
                                                                            {"f64", Type::kF64}}) {
    f.push_back({"selp." + name + " d, a, b, c;", type, {type, type, p}, [](Bits a, Bits b, Bits c, Bits) {
                   return c ? a : b;
                 }});
    f.push_back({"mov." + name + " d, a;", type, {type}, [](Bits a, Bits, Bits, Bits) { return a; }});
    f.push_back({"slct." + name + ".s32 d, a, b, c;",
                 type,
                 {type, type, Type::kS32},
                 [](Bits a, Bits b, Bits c, Bits) { return as<int32_t>(c) >= 0 ? a : b; }});
    f.push_back({"slct." + name + ".f32 d, a, b, c;",
                 type,
                 {type, type, Type::kF32},
                 [](Bits a, Bits b, Bits c, Bits) { return as<float>(c) >= 0 ? a : b; }});
  }
  f.push_back({"mov.u64 d, a;", Type::kU64, {Type::kU64}, [](Bits a, Bits, Bits, Bits) { return a; }});
  f.push_back({"mov.pred d, a;", p, {p}, [](Bits a, Bits, Bits, Bits) { return a; }});
  f.push_back({"mov.b32 d, {a, b};", Type::kB32, {Type::kB16, Type::kB16}, [](Bits a, Bits b, Bits, Bits) {
                 return b << 16 | a;
               }});
  f.push_back({"mov.b64 d, {a, b};", Type::kB64, {Type::kB32, Type::kB32}, [](Bits a, Bits b, Bits, Bits) {
                 return b << 32 | a;
               }});
  f.push_back({"mov.b64 d, {a, b, c, e};", Type::kB64, std::vector<Type>(4, Type::kB16),
               [](Bits a, Bits b, Bits c, Bits e) { return e << 48 | c << 32 | b << 16 | a; }});
  f.push_back({"mov.b32 {d, b}, a;", Type::kB16, {Type::kB32, Type::kB16}, [](Bits a, Bits, Bits, Bits) {
                 return a & 0xffff;
               }});
  f.push_back({"mov.b64 {b, d}, a;", Type::kB32, {Type::kB64, Type::kB32}, [](Bits a, Bits, Bits, Bits) {
                 return a >> 32;
               }});
  check_forms(f);
}

// ---- cvt

template <class D, class S>
void add_int_pair(std::vector<Form>& f, const std::string& names, Type d, Type s) {
  f.push_back(
      {"cvt." + names + " d, a;", d, {s}, [](Bits a, Bits, Bits, Bits) { return bits_of(D(as<S>(a))); }});
  f.push_back({"cvt.sat." + names + " d, a;", d, {s}, [](Bits a, Bits, Bits, Bits) {
                 using I = __int128;
                 return bits_of(D(
                     std::clamp<I>(as<S>(a), std::numeric_limits<D>::min(), std::numeric_limits<D>::max())));
               }});
}

template <class S>
void add_int_source(std::vector<Form>& f, const std::string& s, Type type) {
  add_int_pair<uint16_t, S>(f, "u16." + s, Type::kU16, type);
  add_int_pair<int16_t, S>(f, "s16." + s, Type::kS16, type);
  add_int_pair<uint32_t, S>(f, "u32." + s, Type::kU32, type);
  add_int_pair<int32_t, S>(f, "s32." + s, Type::kS32, type);
  add_int_pair<uint64_t, S>(f, "u64." + s, Type::kU64, type);
  add_int_pair<int64_t, S>(f, "s64." + s, Type::kS64, type);
  const std::pair<const char*, int> modes[] = {
      {"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto& [name, host] : modes)
    f.push_back({std::string("cvt.") + name + ".f32." + s + " d, a;",
                 Type::kF32,
                 {type},
                 [mode = host](Bits a, Bits, Bits, Bits) {
                   std::fesetround(mode);
                   volatile S x = as<S>(a);
                   volatile float r = float(x);
                   std::fesetround(FE_TONEAREST);
                   return bits_of(float(r));
                 }});
  f.push_back({"cvt.rn.f64." + s + " d, a;", Type::kF64, {type}, [](Bits a, Bits, Bits, Bits) {
                 return bits_of(double(as<S>(a)));
               }});
  if (sizeof(S) <= 4)
    f.push_back({"cvt.rn.f16." + s + " d, a;", Type::kF16, {type}, [](Bits a, Bits, Bits, Bits) {
                   return bits_of(_Float16(double(as<S>(a))));
                 }});
}

TEST("ptxsim forms: cvt from integers") {
  std::vector<Form> f;
  add_int_source<uint16_t>(f, "u16", Type::kU16);
  add_int_source<int16_t>(f, "s16", Type::kS16);
  add_int_source<uint32_t>(f, "u32", Type::kU32);
  add_int_source<int32_t>(f, "s32", Type::kS32);
  add_int_source<uint64_t>(f, "u64", Type::kU64);
  add_int_source<int64_t>(f, "s64", Type::kS64);
  // Bytes live in wider registers.
  f.push_back({"cvt.s32.s8 d, a;", Type::kS32, {Type::kS32}, [](Bits a, Bits, Bits, Bits) {
                 return bits_of(int32_t(int8_t(a)));
               }});
  f.push_back(
      {"cvt.u64.u8 d, a;", Type::kU64, {Type::kU16}, [](Bits a, Bits, Bits, Bits) { return a & 255; }});
  f.push_back({"cvt.s8.s32 d, a;", Type::kS32, {Type::kS32}, [](Bits a, Bits, Bits, Bits) {
                 return bits_of(int32_t(int8_t(a)));
               }});
  f.push_back({"cvt.s16.s8 d, a;", Type::kS16, {Type::kS16}, [](Bits a, Bits, Bits, Bits) {
                 return bits_of(int16_t(int8_t(a)));
               }});
  f.push_back({"cvt.rn.f32.u8 d, a;", Type::kF32, {Type::kU16}, [](Bits a, Bits, Bits, Bits) {
                 return bits_of(float(a & 255));
               }});
  check_forms(f);
}

template <class D, class S>
void add_float_to_int(std::vector<Form>& f, const std::string& names, Type d, Type s) {
  const std::pair<const char*, double (*)(double)> modes[] = {
      {"rni", [](double x) { return std::nearbyint(x); }},
      {"rzi", [](double x) { return std::trunc(x); }},
      {"rmi", [](double x) { return std::floor(x); }},
      {"rpi", [](double x) { return std::ceil(x); }}};
  for (const auto& [name, g] : modes)
    f.push_back(
        {std::string("cvt.") + name + "." + names + " d, a;", d, {s}, [g = g](Bits a, Bits, Bits, Bits) {
           const double x = g(double(as<S>(a)));
           if (x != x) return sizeof(D) == 8 || sizeof(S) == 8 ? Bits{1} << (8 * sizeof(D) - 1) : Bits{0};
           const long double low = std::numeric_limits<D>::min(), high = std::numeric_limits<D>::max();
           return bits_of(D(std::clamp<long double>(x, low, high)));
         }});
}

TEST("ptxsim forms: cvt from floats to integers") {
  std::vector<Form> f;
  add_float_to_int<int32_t, float>(f, "s32.f32", Type::kS32, Type::kF32);
  add_float_to_int<uint32_t, float>(f, "u32.f32", Type::kU32, Type::kF32);
  add_float_to_int<int64_t, float>(f, "s64.f32", Type::kS64, Type::kF32);
  add_float_to_int<uint64_t, float>(f, "u64.f32", Type::kU64, Type::kF32);
  add_float_to_int<int16_t, float>(f, "s16.f32", Type::kS16, Type::kF32);
  add_float_to_int<int32_t, double>(f, "s32.f64", Type::kS32, Type::kF64);
  add_float_to_int<uint64_t, double>(f, "u64.f64", Type::kU64, Type::kF64);
  add_float_to_int<int32_t, _Float16>(f, "s32.f16", Type::kS32, Type::kF16);
  check_forms(f);
}

TEST("ptxsim forms: cvt between floats") {
  const auto nan32 = [](float x) { return x != x ? Bits{0x7fffffff} : bits_of(x); };
  const auto half = [](double x) {
    const _Float16 h = _Float16(x);
    return h != h ? Bits{0x7fff} : bits_of(h);
  };
  const auto bfloat = [](float x) {  // to the nearest, of two the even one
    const uint32_t bits = uint32_t(bits_of(x));
    return x != x ? Bits{0x7fff} : Bits(bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  const Type f32 = Type::kF32, f64 = Type::kF64, f16 = Type::kF16;
  std::vector<Form> f = {
      {"cvt.rn.bf16.f32 d, a;",
       Type::kBf16,
       {f32},
       [=](Bits a, Bits, Bits, Bits) { return bfloat(as<float>(a)); }},
      {"cvt.rn.bf16x2.f32 d, a, b;",
       Type::kBf16x2,
       {f32, f32},
       [=](Bits a, Bits b, Bits, Bits) { return bfloat(as<float>(a)) << 16 | bfloat(as<float>(b)); }},
      {"cvt.rn.f16.f32 d, a;", f16, {f32}, [=](Bits a, Bits, Bits, Bits) { return half(as<float>(a)); }},
      {"cvt.rn.f16.f64 d, a;", f16, {f64}, [=](Bits a, Bits, Bits, Bits) { return half(as<double>(a)); }},
      {"cvt.f64.f32 d, a;",
       f64,
       {f32},
       [](Bits a, Bits, Bits, Bits) { return bits_of(double(as<float>(a))); }},
      {"cvt.f32.f16 d, a;",
       f32,
       {f16},
       [=](Bits a, Bits, Bits, Bits) { return nan32(float(as<_Float16>(a))); }},
      {"cvt.f32.bf16 d, a;",
       f32,
       {Type::kBf16},
       [=](Bits a, Bits, Bits, Bits) { return nan32(as<float>(a << 16)); }},
      {"cvt.rn.f16x2.f32 d, a, b;",
       Type::kF16x2,
       {f32, f32},
       [=](Bits a, Bits b, Bits, Bits) { return half(as<float>(a)) << 16 | half(as<float>(b)); }},
      {"cvt.rni.f32.f32 d, a;",
       f32,
       {f32},
       [=](Bits a, Bits, Bits, Bits) { return nan32(std::nearbyint(as<float>(a))); }},
      {"cvt.rzi.f32.f32 d, a;",
       f32,
       {f32},
       [=](Bits a, Bits, Bits, Bits) { return nan32(std::trunc(as<float>(a))); }},
      {"cvt.rmi.f32.f32 d, a;",
       f32,
       {f32},
       [=](Bits a, Bits, Bits, Bits) { return nan32(std::floor(as<float>(a))); }},
      {"cvt.sat.f32.f32 d, a;", f32, {f32}, [=](Bits a, Bits, Bits, Bits) {
         const float x = as<float>(a);
         return x > 0 ? bits_of(std::min(x, 1.0f)) : Bits{0};
       }}};
  const std::pair<const char*, int> modes[] = {
      {"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto& [name, host] : modes)
    f.push_back({std::string("cvt.") + name + ".f32.f64 d, a;",
                 f32,
                 {f64},
                 [=, mode = host](Bits a, Bits, Bits, Bits) {
                   std::fesetround(mode);
                   volatile double x = as<double>(a);
                   volatile float r = float(x);
                   std::fesetround(FE_TONEAREST);
                   return nan32(r);
                 }});
  check_forms(f);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
