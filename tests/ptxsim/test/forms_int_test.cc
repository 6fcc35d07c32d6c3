// SPDX-License-Identifier: Apache-2.0
// Integer arithmetic and bit operations, form by form.
#include <algorithm>
#include <limits>

#include "check.h"
#include "forms.h"

namespace maestrale::ptxsim::test {
namespace {

using I128 = __int128;

// Forms `name.type d, a, b` whose oracle works on exact 128-bit integers and keeps the low bits.
template <class T>
Form exact(const std::string& name, Type type, I128 (*f)(I128, I128, I128), int arity) {
  static const char* const operands[] = {"", " d, a;", " d, a, b;", " d, a, b, c;"};
  return {name + operands[arity], type, std::vector<Type>(size_t(arity), type),
          [f](Bits a, Bits b, Bits c, Bits) { return bits_of(T(f(as<T>(a), as<T>(b), as<T>(c)))); }};
}

struct Named {
  const char* suffix;
  Type type;
};
const Named kIntegers[] = {{"u16", Type::kU16}, {"s16", Type::kS16}, {"u32", Type::kU32},
                           {"s32", Type::kS32}, {"u64", Type::kU64}, {"s64", Type::kS64}};

void for_all(std::vector<Form>& out, const std::string& name, I128 (*f)(I128, I128, I128), int arity,
             bool only_signed = false) {
  for (const Named& t : kIntegers) {
    if (only_signed && !is_signed(t.type)) continue;
    const std::string full = name + "." + t.suffix;
    switch (t.type) {
      case Type::kU16: out.push_back(exact<uint16_t>(full, t.type, f, arity)); break;
      case Type::kS16: out.push_back(exact<int16_t>(full, t.type, f, arity)); break;
      case Type::kU32: out.push_back(exact<uint32_t>(full, t.type, f, arity)); break;
      case Type::kS32: out.push_back(exact<int32_t>(full, t.type, f, arity)); break;
      case Type::kU64: out.push_back(exact<uint64_t>(full, t.type, f, arity)); break;
      default: out.push_back(exact<int64_t>(full, t.type, f, arity)); break;
    }
  }
}

TEST("ptxsim forms: integer add, sub, mul.lo, mad.lo, min, max, abs, neg, sad") {
  std::vector<Form> f;
  for_all(
      f, "add", [](I128 a, I128 b, I128) { return a + b; }, 2);
  for_all(
      f, "sub", [](I128 a, I128 b, I128) { return a - b; }, 2);
  for_all(
      f, "mul.lo", [](I128 a, I128 b, I128) { return I128((unsigned __int128)(a) * (unsigned __int128)(b)); },
      2);
  for_all(
      f, "mad.lo",
      [](I128 a, I128 b, I128 c) {
        return I128((unsigned __int128)(a) * (unsigned __int128)(b) + (unsigned __int128)(c));
      },
      3);
  for_all(
      f, "min", [](I128 a, I128 b, I128) { return std::min(a, b); }, 2);
  for_all(
      f, "max", [](I128 a, I128 b, I128) { return std::max(a, b); }, 2);
  for_all(
      f, "abs", [](I128 a, I128, I128) { return a < 0 ? -a : a; }, 1, true);
  for_all(
      f, "neg", [](I128 a, I128, I128) { return -a; }, 1, true);
  for_all(
      f, "sad", [](I128 a, I128 b, I128 c) { return c + (a < b ? b - a : a - b); }, 3);
  check_forms(f);
}

TEST("ptxsim forms: integer div, rem") {
  std::vector<Form> f;
  for_all(
      f, "div", [](I128 a, I128 b, I128) { return b == 0 ? I128(-1) : a / b; }, 2);
  for_all(
      f, "rem", [](I128 a, I128 b, I128) { return b == 0 ? a : a % b; }, 2);
  check_forms(f);
}

template <class T, class W>
void add_wide(std::vector<Form>& f, const std::string& suffix, Type type, Type wide) {
  const auto product = [](Bits a, Bits b) { return W(W(as<T>(a)) * W(as<T>(b))); };
  f.push_back({"mul.wide." + suffix + " d, a, b;", wide, {type, type}, [=](Bits a, Bits b, Bits, Bits) {
                 return bits_of(product(a, b));
               }});
  f.push_back(
      {"mad.wide." + suffix + " d, a, b, c;", wide, {type, type, wide}, [=](Bits a, Bits b, Bits c, Bits) {
         using U = std::make_unsigned_t<W>;
         return bits_of(W(U(product(a, b)) + U(as<W>(c))));
       }});
}

template <class T>
void add_high(std::vector<Form>& f, const std::string& suffix, Type type) {
  const auto high = [](Bits a, Bits b) {
    // 64-bit unsigned products need all 128 bits; the signed ones fit a signed 128.
    const auto p = std::is_signed_v<T> ? (unsigned __int128)(I128(as<T>(a)) * I128(as<T>(b)))
                                       : (unsigned __int128)(as<T>(a)) * (unsigned __int128)(as<T>(b));
    return T(p >> (8 * sizeof(T)));
  };
  f.push_back({"mul.hi." + suffix + " d, a, b;", type, {type, type}, [=](Bits a, Bits b, Bits, Bits) {
                 return bits_of(high(a, b));
               }});
  f.push_back(
      {"mad.hi." + suffix + " d, a, b, c;", type, {type, type, type}, [=](Bits a, Bits b, Bits c, Bits) {
         using U = std::make_unsigned_t<T>;
         return bits_of(T(U(high(a, b)) + U(as<T>(c))));
       }});
}

TEST("ptxsim forms: mul and mad, wide and hi") {
  std::vector<Form> f;
  add_wide<uint16_t, uint32_t>(f, "u16", Type::kU16, Type::kU32);
  add_wide<int16_t, int32_t>(f, "s16", Type::kS16, Type::kS32);
  add_wide<uint32_t, uint64_t>(f, "u32", Type::kU32, Type::kU64);
  add_wide<int32_t, int64_t>(f, "s32", Type::kS32, Type::kS64);
  add_high<uint16_t>(f, "u16", Type::kU16);
  add_high<int16_t>(f, "s16", Type::kS16);
  add_high<uint32_t>(f, "u32", Type::kU32);
  add_high<int32_t>(f, "s32", Type::kS32);
  add_high<uint64_t>(f, "u64", Type::kU64);
  add_high<int64_t>(f, "s64", Type::kS64);
  check_forms(f);
}

TEST("ptxsim forms: saturating add and sub, carry chains") {
  const auto clamp = [](int64_t x) { return bits_of(int32_t(std::clamp<int64_t>(x, INT32_MIN, INT32_MAX))); };
  std::vector<Form> f = {
      {"add.sat.s32 d, a, b;",
       Type::kS32,
       {Type::kS32, Type::kS32},
       [=](Bits a, Bits b, Bits, Bits) { return clamp(int64_t(as<int32_t>(a)) + as<int32_t>(b)); }},
      {"sub.sat.s32 d, a, b;",
       Type::kS32,
       {Type::kS32, Type::kS32},
       [=](Bits a, Bits b, Bits, Bits) { return clamp(int64_t(as<int32_t>(a)) - as<int32_t>(b)); }},
      {"add.cc.u32 d, a, b; addc.u32 d, c, e;", Type::kU32, std::vector<Type>(4, Type::kU32),
       [](Bits a, Bits b, Bits c, Bits e) { return Bits(uint32_t(c + e + ((a + b) >> 32))); }},
      {"add.cc.u32 d, a, b; addc.cc.u32 d, c, c; addc.u32 d, e, e;", Type::kU32,
       std::vector<Type>(4, Type::kU32),
       [](Bits a, Bits b, Bits c, Bits e) {
         return Bits(uint32_t(2 * e + ((2 * c + ((a + b) >> 32)) >> 32)));
       }},
      {"sub.cc.u32 d, a, b; subc.u32 d, c, e;", Type::kU32, std::vector<Type>(4, Type::kU32),
       [](Bits a, Bits b, Bits c, Bits e) { return Bits(uint32_t(c - e - (a < b))); }},
      {"sub.cc.u32 d, a, b; subc.cc.s32 d, c, c; subc.u32 d, e, e;", Type::kU32,
       std::vector<Type>(4, Type::kU32),
       [](Bits a, Bits b, Bits, Bits) { return Bits(uint32_t(0 - uint32_t(a < b))); }}};
  check_forms(f);
}

template <class T>
Bits byte(Bits x, int k, int width = 8) {
  return Bits(int64_t(T(x >> (width * k))));
}

template <class A, class B>
void add_dots(std::vector<Form>& f, const std::string& types) {
  f.push_back({"dp4a." + types + " d, a, b, c;", Type::kU32, std::vector<Type>(3, Type::kU32),
               [](Bits a, Bits b, Bits c, Bits) {
                 Bits sum = c;
                 for (int k = 0; k < 4; ++k) sum += byte<A>(a, k) * byte<B>(b, k);
                 return Bits(uint32_t(sum));
               }});
  using A16 = std::conditional_t<std::is_signed_v<A>, int16_t, uint16_t>;
  for (const bool high : {false, true})
    f.push_back({std::string("dp2a.") + (high ? "hi." : "lo.") + types + " d, a, b, c;", Type::kU32,
                 std::vector<Type>(3, Type::kU32), [high](Bits a, Bits b, Bits c, Bits) {
                   Bits sum = c;
                   for (int k = 0; k < 2; ++k) sum += byte<A16>(a, k, 16) * byte<B>(b, k + (high ? 2 : 0));
                   return Bits(uint32_t(sum));
                 }});
}

TEST("ptxsim forms: dp4a, dp2a") {
  std::vector<Form> f;
  add_dots<uint8_t, uint8_t>(f, "u32.u32");
  add_dots<int8_t, uint8_t>(f, "s32.u32");
  add_dots<uint8_t, int8_t>(f, "u32.s32");
  add_dots<int8_t, int8_t>(f, "s32.s32");
  check_forms(f);
}

template <class T>
void add_bits_of(std::vector<Form>& f, const std::string& width, Type type) {
  const auto two = [&](const std::string& name, Bits (*g)(Bits, Bits)) {
    f.push_back({name + "." + width + " d, a, b;", type, {type, type}, [g](Bits a, Bits b, Bits, Bits) {
                   return Bits(T(g(a, b)));
                 }});
  };
  two("and", [](Bits a, Bits b) { return a & b; });
  two("or", [](Bits a, Bits b) { return a | b; });
  two("xor", [](Bits a, Bits b) { return a ^ b; });
  f.push_back(
      {"not." + width + " d, a;", type, {type}, [](Bits a, Bits, Bits, Bits) { return Bits(T(~a)); }});
  f.push_back(
      {"cnot." + width + " d, a;", type, {type}, [](Bits a, Bits, Bits, Bits) { return Bits(a == 0); }});
  f.push_back({"shl." + width + " d, a, b;", type, {type, Type::kU32}, [](Bits a, Bits n, Bits, Bits) {
                 return n > 63 ? 0 : Bits(T((unsigned __int128)(a) << n));
               }});
}

template <class T>
void add_shift_right(std::vector<Form>& f, const std::string& type_name, Type type) {
  f.push_back({"shr." + type_name + " d, a, b;", type, {type, Type::kU32}, [](Bits a, Bits n, Bits, Bits) {
                 return bits_of(T(I128(as<T>(a)) >> std::min<Bits>(n, 64)));
               }});
}

TEST("ptxsim forms: and, or, xor, not, cnot, shl, shr") {
  std::vector<Form> f;
  add_bits_of<uint16_t>(f, "b16", Type::kB16);
  add_bits_of<uint32_t>(f, "b32", Type::kB32);
  add_bits_of<uint64_t>(f, "b64", Type::kB64);
  add_shift_right<uint16_t>(f, "u16", Type::kU16);
  add_shift_right<int16_t>(f, "s16", Type::kS16);
  add_shift_right<uint32_t>(f, "u32", Type::kU32);
  add_shift_right<int32_t>(f, "s32", Type::kS32);
  add_shift_right<uint64_t>(f, "u64", Type::kU64);
  add_shift_right<int64_t>(f, "s64", Type::kS64);
  add_shift_right<uint32_t>(f, "b32", Type::kB32);
  const Type p = Type::kPred;
  f.push_back({"and.pred d, a, b;", p, {p, p}, [](Bits a, Bits b, Bits, Bits) { return a & b; }});
  f.push_back({"or.pred d, a, b;", p, {p, p}, [](Bits a, Bits b, Bits, Bits) { return a | b; }});
  f.push_back({"xor.pred d, a, b;", p, {p, p}, [](Bits a, Bits b, Bits, Bits) { return a ^ b; }});
  f.push_back({"not.pred d, a;", p, {p}, [](Bits a, Bits, Bits, Bits) { return a ^ 1; }});
  check_forms(f);
}

TEST("ptxsim forms: shf, prmt, lop3") {
  const Type t = Type::kB32;
  std::vector<Form> f = {
      {"shf.l.wrap.b32 d, a, b, c;",
       t,
       {t, t, t},
       [](Bits a, Bits b, Bits c, Bits) { return Bits(uint32_t(((b << 32 | a) << (c & 31)) >> 32)); }},
      {"shf.r.wrap.b32 d, a, b, c;",
       t,
       {t, t, t},
       [](Bits a, Bits b, Bits c, Bits) { return Bits(uint32_t((b << 32 | a) >> (c & 31))); }},
      {"shf.l.clamp.b32 d, a, b, c;",
       t,
       {t, t, t},
       [](Bits a, Bits b, Bits c, Bits) {
         return Bits(uint32_t(((b << 32 | a) << std::min<Bits>(c, 32)) >> 32));
       }},
      {"shf.r.clamp.b32 d, a, b, c;",
       t,
       {t, t, t},
       [](Bits a, Bits b, Bits c, Bits) { return Bits(uint32_t((b << 32 | a) >> std::min<Bits>(c, 32))); }},
      {"prmt.b32 d, a, b, c;", t, {t, t, t}, [](Bits a, Bits b, Bits c, Bits) {
         Bits r = 0;
         for (int k = 0; k < 4; ++k) {
           const int pick = int(c >> (4 * k) & 15);
           const Bits source = (pick & 4) ? b : a;
           Bits value = source >> (8 * (pick & 3)) & 255;
           if (pick & 8) value = (value & 128) ? 255 : 0;
           r |= value << (8 * k);
         }
         return r;
       }}};
  for (const int table : {0x00, 0x01, 0x80, 0xff, 0x96, 0xe8, 0xca, 0x40, 0xea, 0xb8})
    f.push_back({"lop3.b32 d, a, b, c, " + std::to_string(table) + ";",
                 t,
                 {t, t, t},
                 [table](Bits a, Bits b, Bits c, Bits) {
                   Bits r = 0;
                   for (int k = 0; k < 32; ++k)
                     r |= Bits(table >> ((a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1)) & 1) << k;
                   return r;
                 }});
  check_forms(f);
}

// As the PTX manual writes bfe and bfi, bit by bit.
template <class T>
Bits extract(Bits a, Bits b, Bits c) {
  const int width = 8 * int(sizeof(T)), position = int(b & 255), length = int(c & 255);
  const bool is_signed_type = std::is_signed_v<T>;
  const Bits sign = !is_signed_type || length == 0 ? 0 : a >> std::min(position + length - 1, width - 1) & 1;
  Bits d = 0;
  for (int i = 0; i < width; ++i)
    d |= (i < length && position + i < width ? a >> (position + i) & 1 : sign) << i;
  return d;
}
Bits insert(Bits a, Bits b, Bits c, Bits e, int width) {
  const int position = int(c & 255), length = int(e & 255);
  for (int i = 0; i < length && position + i < width; ++i)
    b = (b & ~(Bits{1} << (position + i))) | (a >> i & 1) << (position + i);
  return b;
}

TEST("ptxsim forms: bfe, bfi, bfind, brev, clz, popc") {
  const Type u = Type::kU32;
  std::vector<Form> f = {{"bfe.u32 d, a, b, c;",
                          u,
                          {u, u, u},
                          [](Bits a, Bits b, Bits c, Bits) { return extract<uint32_t>(a, b, c); }},
                         {"bfe.s32 d, a, b, c;",
                          u,
                          {u, u, u},
                          [](Bits a, Bits b, Bits c, Bits) { return extract<int32_t>(a, b, c); }},
                         {"bfe.u64 d, a, b, c;",
                          Type::kU64,
                          {Type::kU64, u, u},
                          [](Bits a, Bits b, Bits c, Bits) { return extract<uint64_t>(a, b, c); }},
                         {"bfe.s64 d, a, b, c;",
                          Type::kU64,
                          {Type::kU64, u, u},
                          [](Bits a, Bits b, Bits c, Bits) { return extract<int64_t>(a, b, c); }},
                         {"bfi.b32 d, a, b, c, e;",
                          u,
                          {u, u, u, u},
                          [](Bits a, Bits b, Bits c, Bits e) { return insert(a, b, c, e, 32); }},
                         {"bfi.b64 d, a, b, c, e;",
                          Type::kU64,
                          {Type::kU64, Type::kU64, u, u},
                          [](Bits a, Bits b, Bits c, Bits e) { return insert(a, b, c, e, 64); }}};
  const auto count = [&](const std::string& text, Type type, Type d, Bits (*g)(Bits, int)) {
    f.push_back({text + " d, a;", d, {type}, [g, type](Bits a, Bits, Bits, Bits) {
                   return g(a, 8 * type_bytes(type));
                 }});
  };
  const auto top = [](Bits a, int width) {
    for (int k = width; k-- > 0;)
      if (a >> k & 1) return k;
    return -1;
  };
  static const auto top_bit = top;
  for (const bool wide : {false, true}) {
    const std::string w = wide ? "64" : "32";
    const Type t = wide ? Type::kB64 : Type::kB32;
    count("popc.b" + w, t, u, [](Bits a, int width) {
      Bits n = 0;
      for (int k = 0; k < width; ++k) n += a >> k & 1;
      return n;
    });
    count("clz.b" + w, t, u, [](Bits a, int width) { return Bits(width - 1 - top_bit(a, width)); });
    count("brev.b" + w, t, t, [](Bits a, int width) {
      Bits r = 0;
      for (int k = 0; k < width; ++k) r |= (a >> k & 1) << (width - 1 - k);
      return r;
    });
    count("bfind.u" + w, t, u, [](Bits a, int width) { return Bits(uint32_t(top_bit(a, width))); });
    count("bfind.shiftamt.u" + w, t, u,
          [](Bits a, int width) { return Bits(uint32_t(a ? width - 1 - top_bit(a, width) : -1)); });
    count("bfind.s" + w, t, u, [](Bits a, int width) {
      const Bits mask = width == 64 ? ~Bits{0} : 0xffffffff;
      return Bits(uint32_t(top_bit((a >> (width - 1) & 1) ? ~a & mask : a, width)));
    });
    count("bfind.shiftamt.s" + w, t, u, [](Bits a, int width) {
      const Bits mask = width == 64 ? ~Bits{0} : 0xffffffff;
      const int k = top_bit((a >> (width - 1) & 1) ? ~a & mask : a, width);
      return Bits(uint32_t(k < 0 ? -1 : width - 1 - k));
    });
  }
  check_forms(f);
}

}  // namespace
}  // namespace maestrale::ptxsim::test
