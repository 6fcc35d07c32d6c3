// SPDX-License-Identifier: Apache-2.0
// ldmatrix and mma.sync. Fragment layouts are those of the PTX manual: lane l holds row l/4 (and +8),
// columns (l%4)*2 + {0,1} of 16-bit tiles, four consecutive bytes of 8-bit ones.
#include <cstring>

#include "exec/dispatch.h"
#include "exec/memory.h"
#include "exec/numerics.h"

namespace maestrale::ptxsim {
namespace {

// ---- ldmatrix: lane i names row i%8 of matrix i/8

template <bool kTransposed>
void load_matrix(Warp& w, const Op& op, uint32_t mask) {
  const Access& a = *op.access;
  const int n = op.fragments->n;
  if (mask != kAllLanes)
    report(w, op, __builtin_ctz(mask), FaultKind::kWarpSync, "ldmatrix needs all lanes of the warp");
  Lanes64 address = addresses(w, a.base, a.base_is_32_bits, a.offset);
  const uint32_t rows = n == 4 ? kAllLanes : (1u << (8 * n)) - 1;
  if (a.space == Space::kGeneric) each_lane(rows, [&](int i) { address.v[i] &= kWindowBytes - 1; });
  const Resolved r = resolve(w, op, rows, Space::kShared, address, 16, AccessKind::kLoad);
  for (int q = 0; q < n; ++q) {
    uint16_t tile[8][8];
    for (int row = 0; row < 8; ++row) std::memcpy(tile[row], r.at[8 * q + row], 16);
    uint32_t* d = w.reg<uint32_t>(op.fragments->d[q]);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      d[lane] = kTransposed ? uint32_t(tile[column + 1][row]) << 16 | tile[column][row]
                            : uint32_t(tile[row][column + 1]) << 16 | tile[row][column];
    }
  }
}

void decode_ldmatrix(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("sync");
  m.expect("aligned");
  m.expect("m8n8");
  const int n = m.accept("x4") ? 4 : m.accept("x2") ? 2 : (m.expect("x1"), 1);
  const bool transposed = m.accept("trans");
  Access& a = d.new_access(op);
  if (m.accept("shared")) a.space = Space::kShared, m.accept("cta");
  m.expect("b16");
  m.end();
  d.operands(i, 2);
  if (i.operands[0].kind != Operand::kVector || int(i.operands[0].elements.size()) != n)
    d.fail("ldmatrix needs one register per matrix");
  Fragments& f = d.new_fragments(op);
  f.n = n;
  for (int k = 0; k < n; ++k) f.d[k] = d.destination(i.operands[0].elements[size_t(k)], Type::kB32);
  d.address(i.operands[1], a);
  op.src[3] = d.constant(kAllLanes, 4);
  op.run = transposed ? load_matrix<true> : load_matrix<false>;
  op.flow = Flow::kCollective;
}

// ---- products

// A sum of exact products in the three ways of Options::accumulate. Real tensor cores add blocks of
// products with a few extra bits and cut the rest off; kTruncate does so with blocks of 8 and 3 bits.
float accumulate(float c, const float* a, const float* b, int k, Accumulate mode) {
  if (mode == Accumulate::kFloat) {
    for (int i = 0; i < k; ++i) c += a[i] * b[i];
    return c;
  }
  if (mode == Accumulate::kDouble) {
    double sum = c;
    for (int i = 0; i < k; ++i) sum += double(a[i]) * double(b[i]);
    return float(sum);
  }
  for (int block = 0; block < k; block += 8) {
    double terms[9] = {c}, largest = std::fabs(double(c));
    const int n = std::min(8, k - block);
    for (int i = 0; i < n; ++i) {
      terms[i + 1] = double(a[block + i]) * double(b[block + i]);
      largest = std::max(largest, std::fabs(terms[i + 1]));
    }
    if (largest == 0 || !std::isfinite(largest)) {
      double sum = 0;
      for (int i = 0; i <= n; ++i) sum += terms[i];
      c = float(sum);
      continue;
    }
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23 - 3);
    double sum = 0;
    for (int i = 0; i <= n; ++i) sum += std::trunc(terms[i] / unit) * unit;
    c = round_to_float(sum, Round::kZero);
  }
  return c;
}

template <bool kBfloat>
float element(uint32_t word, int half) {
  const uint16_t bits = uint16_t(word >> (16 * half));
  return kBfloat ? from_bfloat(bits) : from_half(bits);
}

// m16n8kK with 16-bit factors; a has K/4 registers, b has K/8. kHalfSum: c and d are f16.
template <int K, bool kBfloat, bool kHalfSum>
void mma_float(Warp& w, const Op& op, uint32_t mask) {
  if (mask != kAllLanes)
    report(w, op, __builtin_ctz(mask), FaultKind::kWarpSync, "mma needs all lanes of the warp");
  ++w.cta->counters->mma;
  const Fragments& f = *op.fragments;
  const Accumulate mode = w.cta->options().accumulate;
  alignas(64) float a[16][K], b[8][K];
  for (int q = 0; q < K / 4; ++q) {
    const uint32_t* word = w.reg<uint32_t>(f.a[q]);
    for (int lane = 0; lane < kWarpSize; ++lane)
      for (int half = 0; half < 2; ++half)
        a[lane / 4 + 8 * (q & 1)][lane % 4 * 2 + half + 8 * (q >> 1)] = element<kBfloat>(word[lane], half);
  }
  for (int q = 0; q < K / 8; ++q) {
    const uint32_t* word = w.reg<uint32_t>(f.b[q]);
    for (int lane = 0; lane < kWarpSize; ++lane)
      for (int half = 0; half < 2; ++half)
        b[lane / 4][lane % 4 * 2 + half + 8 * q] = element<kBfloat>(word[lane], half);
  }
  float result[4][kWarpSize];
  for (int q = 0; q < 4; ++q)
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int row = lane / 4 + 8 * (q >> 1), column = lane % 4 * 2 + (q & 1);
      const float c =
          kHalfSum ? element<false>(w.reg<uint32_t>(f.c[q >> 1])[lane], q & 1) : w.reg<float>(f.c[q])[lane];
      result[q][lane] = canonical(accumulate(c, a[row], b[column], K, mode));
    }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if constexpr (kHalfSum) {
      for (int q = 0; q < 2; ++q)
        w.reg<uint32_t>(f.d[q])[lane] =
            uint32_t(to_half(result[2 * q + 1][lane])) << 16 | to_half(result[2 * q][lane]);
    } else {
      for (int q = 0; q < 4; ++q) w.reg<float>(f.d[q])[lane] = result[q][lane];
    }
  }
}

// mMn8kK with 8-bit factors and 32-bit sums that wrap.
template <int M, int K, class A, class B>
void mma_int(Warp& w, const Op& op, uint32_t mask) {
  if (mask != kAllLanes)
    report(w, op, __builtin_ctz(mask), FaultKind::kWarpSync, "mma needs all lanes of the warp");
  ++w.cta->counters->mma;
  const Fragments& f = *op.fragments;
  alignas(64) int16_t a[M][K], b[8][K];
  constexpr int kRowBlocks = M / 8;
  for (int q = 0; q < kRowBlocks * K / 16; ++q) {
    const uint32_t* word = w.reg<uint32_t>(f.a[q]);
    for (int lane = 0; lane < kWarpSize; ++lane)
      for (int byte = 0; byte < 4; ++byte)
        a[lane / 4 + 8 * (q % kRowBlocks)][lane % 4 * 4 + byte + 16 * (q / kRowBlocks)] =
            A(word[lane] >> (8 * byte));
  }
  for (int q = 0; q < K / 16; ++q) {
    const uint32_t* word = w.reg<uint32_t>(f.b[q]);
    for (int lane = 0; lane < kWarpSize; ++lane)
      for (int byte = 0; byte < 4; ++byte)
        b[lane / 4][lane % 4 * 4 + byte + 16 * q] = B(word[lane] >> (8 * byte));
  }
  uint32_t result[2 * kRowBlocks][kWarpSize];
  for (int q = 0; q < 2 * kRowBlocks; ++q)
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int row = lane / 4 + 8 * (q >> 1), column = lane % 4 * 2 + (q & 1);
      int32_t sum = 0;  // at most 32 products of 2^16: no overflow here
      for (int k = 0; k < K; ++k) sum += int32_t(a[row][k]) * b[column][k];
      result[q][lane] = w.reg<uint32_t>(f.c[q])[lane] + uint32_t(sum);
    }
  for (int q = 0; q < 2 * kRowBlocks; ++q) std::memcpy(w.reg<uint32_t>(f.d[q]), result[q], sizeof result[q]);
}

struct Shape {
  const char *shape, *d, *a, *b, *c;
  int nd, na, nb;  // registers
  Handler handler;
};
const Shape kShapes[] = {
    {"m16n8k8", "f32", "f16", "f16", "f32", 4, 2, 1, mma_float<8, false, false>},
    {"m16n8k16", "f32", "f16", "f16", "f32", 4, 4, 2, mma_float<16, false, false>},
    {"m16n8k8", "f16", "f16", "f16", "f16", 2, 2, 1, mma_float<8, false, true>},
    {"m16n8k16", "f16", "f16", "f16", "f16", 2, 4, 2, mma_float<16, false, true>},
    {"m16n8k8", "f32", "bf16", "bf16", "f32", 4, 2, 1, mma_float<8, true, false>},
    {"m16n8k16", "f32", "bf16", "bf16", "f32", 4, 4, 2, mma_float<16, true, false>},
    {"m8n8k16", "s32", "s8", "s8", "s32", 2, 1, 1, mma_int<8, 16, int8_t, int8_t>},
    {"m8n8k16", "s32", "u8", "s8", "s32", 2, 1, 1, mma_int<8, 16, uint8_t, int8_t>},
    {"m8n8k16", "s32", "s8", "u8", "s32", 2, 1, 1, mma_int<8, 16, int8_t, uint8_t>},
    {"m8n8k16", "s32", "u8", "u8", "s32", 2, 1, 1, mma_int<8, 16, uint8_t, uint8_t>},
    {"m16n8k16", "s32", "s8", "s8", "s32", 4, 2, 1, mma_int<16, 16, int8_t, int8_t>},
    {"m16n8k16", "s32", "u8", "s8", "s32", 4, 2, 1, mma_int<16, 16, uint8_t, int8_t>},
    {"m16n8k32", "s32", "s8", "s8", "s32", 4, 4, 2, mma_int<16, 32, int8_t, int8_t>},
    {"m16n8k32", "s32", "u8", "s8", "s32", 4, 4, 2, mma_int<16, 32, uint8_t, int8_t>},
    {"m16n8k32", "s32", "s8", "u8", "s32", 4, 4, 2, mma_int<16, 32, int8_t, uint8_t>},
    {"m16n8k32", "s32", "u8", "u8", "s32", 4, 4, 2, mma_int<16, 32, uint8_t, uint8_t>},
};

void decode_mma(Decoder& d, const Instruction& i, Op& op) {
  Modifiers m(i);
  m.expect("sync");
  m.expect("aligned");
  const std::string shape = m.take();
  m.expect("row");
  m.expect("col");
  const std::string types[4] = {m.take(), m.take(), m.take(), m.take()};
  m.end();
  const Shape* found = nullptr;
  for (const Shape& s : kShapes)
    if (shape == s.shape && types[0] == s.d && types[1] == s.a && types[2] == s.b && types[3] == s.c)
      found = &s;
  if (!found) d.fail("mma." + shape + " on these types is not known");
  d.operands(i, 4);
  Fragments& f = d.new_fragments(op);
  const auto list = [&](size_t at, int n, uint32_t* slots, bool destination) {
    const Operand& o = i.operands[at];
    std::vector<Operand> elements = o.elements;
    if (o.kind != Operand::kVector) elements = {o};
    if (int(elements.size()) != n) d.fail("a fragment of this mma has " + std::to_string(n) + " registers");
    for (int k = 0; k < n; ++k) {
      const bool f32 = (at == 0 || at == 3) && types[0] == "f32";
      const Type type = f32 ? Type::kF32 : Type::kB32;
      slots[k] = destination ? d.destination(elements[size_t(k)], type) : d.source(elements[size_t(k)], type);
    }
  };
  list(0, found->nd, f.d, true);
  list(1, found->na, f.a, false);
  list(2, found->nb, f.b, false);
  list(3, found->nd, f.c, false);
  op.src[3] = d.constant(kAllLanes, 4);
  op.run = found->handler;
  op.flow = Flow::kCollective;
}

}  // namespace

void add_matrix(Opcodes& all) {
  all["ldmatrix"] = decode_ldmatrix;
  all["mma"] = decode_mma;
}

}  // namespace maestrale::ptxsim
