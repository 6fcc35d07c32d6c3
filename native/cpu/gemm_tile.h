// SPDX-License-Identifier: Apache-2.0
// The only matrix multiplication on the CPU: a panel of 16 weight rows times C activation rows, for
// every format and instruction set. Inside a unit everything is int32 and exact; across units one
// fused multiply-add chain per output, in ascending order of the input dimension. So an output's bits
// depend on its weight row and its activation row only: not on tile shape, batch, threads or ISA.
//
// 256-element units:  S = sum_b scale[b] * sum_e (code[e] - offset) * q[e]
//                     f = fma(S * d_w, d_x, f);  with minima T = sum_b min[b] * sum_e q[e]:
//                     f = fma(fma(-T, dmin_w, S * d_w), d_x, f)
// 32-element blocks:  f = fma(sum_e (code[e] - offset) * q[e], d_w * d_x, f);
//                     with minima f = fma(sum_e q[e], m_w * d_x, f)
// 64-element tables:  f = fma(sum_e table[code[e]] * q[e], d_w * (d_x * step), f)
// floating point:     f = fma(w[e], x[e], f)
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cpu/formats.h"
#include "cpu/kernels.h"

namespace maestrale {

// Calls fn.template operator()<0>() ... <N - 1>(), unrolled.
template <int N, class Fn>
[[gnu::always_inline]] inline void unroll(Fn&& fn) {
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (fn.template operator()<i>(), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

// Brings the panel that is multiplied next into the second-level cache, kLines lines a unit, some between any
// two sub-blocks: all at once they would fill the buffers that loads wait in, and memory would idle between
// the bursts. Their number is a constant because a loop would cut a unit into pieces, and they stand between
// sub-blocks because they are assembly, across which the compiler moves nothing.
template <class V, int kLines>
struct Prefetch {
  const std::byte* next;

  // What is due at step `step` of `steps` of a unit.
  template <int step, int steps>
  [[gnu::always_inline]] void at() const {
    constexpr int kFirst = kLines * step / steps, kEnd = kLines * (step + 1) / steps;
    unroll<kEnd - kFirst>([&]<int i>()
                              __attribute__((always_inline)) { V::prefetch(next + 64 * (kFirst + i)); });
  }
};

// One panel times C rows; w and x[c] are the starts of the panel and of the activation rows. sums (C, 16) are
// those over the units before and become those including these. Why one panel: an activation is broadcast by
// the load that the dot product needs anyway, which costs nothing as long as every second instruction at most
// is a load; a second panel would save such loads, but takes the registers of the rows, which are what the
// unpacking of a line is shared among.
template <class V, class Fmt, int C, bool kFetch>
struct Tile {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kFetchLines = kFetch ? Fmt::kBytes / 64 : 0;
  using Fetch = Prefetch<V, kFetchLines>;

  [[gnu::always_inline]] static void run(const std::byte* w, const std::byte* const (&x)[C], int64_t units,
                                         Fetch prefetch, float* sums) {
    F f[C];
    for (int c = 0; c < C; ++c) f[c] = V::load(sums + kPanelRows * c);
    for (int64_t u = 0; u < units; ++u, w += Fmt::kBytes, prefetch.next += 64 * kFetchLines) {
      if constexpr (!requires { typename Fmt::Block; })
        float_unit(w, x, u, prefetch, f);
      else if constexpr (Fmt::kItems == 256)
        super_block(w, x, u, prefetch, sums);
      else if constexpr (Fmt::kItems == 128)
        table_pair(w, x, u, prefetch, f);
      else
        block_pair(w, x, u, prefetch, f);
    }
    if constexpr (Fmt::kItems != 256)
      for (int c = 0; c < C; ++c) V::store(sums + kPanelRows * c, f[c]);
  }

 private:
  // The sums stay in memory: registers are short here, and when GCC puts them on the stack by itself, reading
  // them back stalls Zen 4 for a sixth of the time.
  [[gnu::always_inline]] static void super_block(const std::byte* unit, const std::byte* const (&x)[C],
                                                 int64_t u, Fetch prefetch, float* sums) {
    constexpr int kSubs = Fmt::kItems / Fmt::kSubItems, kLines = Fmt::kSubItems / 4;
    const Activation256* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation256*>(x[c]) + u;
    I s[C];
    for (int c = 0; c < C; ++c) s[c] = V::zero_i();
    if constexpr (Fmt::kWide) {  // sub-block sums need more than 16 bits
      unroll<kSubs>([&]<int b>() __attribute__((always_inline)) {
        prefetch.template at<b, kSubs>();
        I dot[C];
        for (int c = 0; c < C; ++c) dot[c] = start<b>(a[c]);
        add_sub_block<b, kLines>(unit, a, dot);
        const I scale = Fmt::template scale<b>(unit);
        for (int c = 0; c < C; ++c) s[c] = V::add_i(s[c], V::mul_i(dot[c], scale));
      });
    } else {
      // Two sub-block sums share a lane, the even one in the upper half: half as many multiplications by
      // scales, which compete with the dot products for the same execution units. The odd one starts 2^15
      // higher, so that it never borrows from the upper half.
      const I half = V::set1_i(0x8000);
      unroll<kSubs / 2>([&]<int p>() __attribute__((always_inline)) {
        prefetch.template at<p, kSubs / 2>();
        I dot[C];
        for (int c = 0; c < C; ++c) dot[c] = start<2 * p>(a[c]);
        add_sub_block<2 * p, kLines>(unit, a, dot);
        for (int c = 0; c < C; ++c) dot[c] = V::add_i(V::template shl<16>(dot[c]), start<2 * p + 1>(a[c]));
        add_sub_block<2 * p + 1, kLines>(unit, a, dot);
        const I scales = pair_up<V>(Fmt::template scale<2 * p + 1>(unit), Fmt::template scale<2 * p>(unit));
        for (int c = 0; c < C; ++c) s[c] = V::dot2(s[c], V::xor_i(dot[c], half), scales);
      });
    }
    F sum[C];
    const F d =
        Fmt::kHasMins ? V::load_f16(unit + Fmt::kD) : V::load(reinterpret_cast<const float*>(unit + Fmt::kD));
    for (int c = 0; c < C; ++c) sum[c] = V::mul(V::to_float(s[c]), d);
    if constexpr (Fmt::kHasMins) {
      for (int c = 0; c < C; ++c) s[c] = V::zero_i();
      unroll<kSubs / 2>([&]<int p>() __attribute__((always_inline)) {
        const I mins = pair_up<V>(Fmt::template minimum<2 * p>(unit), Fmt::template minimum<2 * p + 1>(unit));
        for (int c = 0; c < C; ++c) {
          const int16_t* item_sums = Fmt::kSubItems == 32 ? a[c]->sum32 : a[c]->sum16;
          s[c] = V::dot2(s[c], mins, V::broadcast4(item_sums + 2 * p));
        }
      });
      const F minus_dmin = V::sub(V::zero(), V::load_f16(unit + Fmt::kDmin));
      for (int c = 0; c < C; ++c) sum[c] = V::fma(V::to_float(s[c]), minus_dmin, sum[c]);
    }
    asm("" : "+r"(sums));  // the compiler cannot know that it is the same address for every unit
    for (int c = 0; c < C; ++c, sums += kPanelRows)
      V::store(sums, V::fma(sum[c], V::set1(a[c]->d), V::load(sums)));
  }

  // dot += codes of sub-block (or block) b, kLines long, times activations
  template <int b, int kLines, class Activation>
  [[gnu::always_inline]] static void add_sub_block(const std::byte* unit, const Activation* const (&a)[C],
                                                   I (&dot)[C]) {
    unroll<kLines>([&]<int l>() __attribute__((always_inline)) {
      const I code = Fmt::template operand<b, l>(unit);
      for (int c = 0; c < C; ++c)
        dot[c] = V::template dot4<Fmt::kWide>(dot[c], code, V::broadcast4(a[c]->q + 4 * (b * kLines + l)));
    });
  }

  // What the sum of sub-block b starts with: -offset * sum of its activations, which turns unsigned codes
  // into signed ones, and 2^15 more where it is the odd one of a pair.
  template <int b>
  [[gnu::always_inline]] static I start(const Activation256* a) {
    constexpr int32_t kHalf = Fmt::kWide || b % 2 == 0 ? 0 : 0x8000;
    if constexpr (Fmt::kOffset == 0) {
      return kHalf == 0 ? V::zero_i() : V::set1_i(kHalf);
    } else if constexpr (Fmt::kSubItems == 16) {
      const I start16 = V::broadcast4(a->start16 + b);
      if constexpr (Fmt::kOffset == 32) return start16;
      static_assert(Fmt::kOffset == 32 || Fmt::kOffset == 4);
      const I offset = V::template sar<3>(start16);
      return kHalf == 0 ? offset : V::add_i(offset, V::set1_i(kHalf - kHalf / 8));
    } else {
      static_assert(Fmt::kOffset == 128 && Fmt::kWide);
      const I both = V::add_i(V::broadcast4(a->start16 + 2 * b), V::broadcast4(a->start16 + 2 * b + 1));
      return V::template shl<2>(V::sub_i(both, V::set1_i(0x8000)));
    }
  }

  [[gnu::always_inline]] static void block_pair(const std::byte* unit, const std::byte* const (&x)[C],
                                                int64_t u, Fetch prefetch, F (&f)[C]) {
    const Activation64* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation64*>(x[c]) + u;
    unroll<2>([&]<int b>() __attribute__((always_inline)) {
      prefetch.template at<b, 2>();
      I dot[C];
      for (int c = 0; c < C; ++c) dot[c] = block_start<b>(a[c]);
      add_sub_block<b, 8>(unit, a, dot);
      const F d = V::load_f16(unit + Fmt::kD + 32 * b);
      for (int c = 0; c < C; ++c) {
        const F dx = V::set1(a[c]->d[b]);
        f[c] = V::fma(V::to_float(dot[c]), V::mul(d, dx), f[c]);
        if constexpr (Fmt::kHasMins)
          f[c] = V::fma(V::to_float(V::broadcast4(a[c]->sum + b)),
                        V::mul(V::load_f16(unit + Fmt::kM + 32 * b), dx), f[c]);
      }
    });
  }

  // As start(), for block b of a pair.
  template <int b>
  [[gnu::always_inline]] static I block_start(const Activation64* a) {
    if constexpr (Fmt::kOffset == 0) return V::zero_i();
    constexpr int kShift = Fmt::kOffset == 8 ? 3 : Fmt::kOffset == 16 ? 4 : 7;
    static_assert(Fmt::kOffset == 0 || Fmt::kOffset == 1 << kShift);
    return V::sub_i(V::zero_i(), V::template shl<kShift>(V::broadcast4(a->sum + b)));
  }

  // Two blocks of table indices times 16-bit activations. Few outputs take several sums each, since a dot
  // product takes longer than the next one would have to wait.
  [[gnu::always_inline]] static void table_pair(const std::byte* unit, const std::byte* const (&x)[C],
                                                int64_t u, Fetch prefetch, F (&f)[C]) {
    constexpr int kChains = C >= 8 ? 1 : C >= 4 ? 2 : 4;
    const typename V::Halves table = Fmt::table();
    const Activation128* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation128*>(x[c]) + u;
    unroll<2>([&]<int b>() __attribute__((always_inline)) {
      prefetch.template at<b, 2>();
      I dot[kChains][C];
      for (int chain = 0; chain < kChains; ++chain)
        for (int c = 0; c < C; ++c) dot[chain][c] = V::zero_i();
      unroll<8>([&]<int l>() __attribute__((always_inline)) {
        const I line = V::line(unit + Fmt::kCodes + 64 * (8 * b + l));
        unroll<4>([&]<int j>() __attribute__((always_inline)) {
          const I weight = Fmt::template pairs<j>(table, line);
          for (int c = 0; c < C; ++c)
            dot[j % kChains][c] =
                V::dot2(dot[j % kChains][c], weight, V::broadcast4(a[c]->q + 64 * b + 8 * l + 2 * j));
        });
      });
      const F d = V::load_f16(unit + Fmt::kD + 32 * b);
      for (int c = 0; c < C; ++c) {
        I sum = dot[0][c];
        for (int chain = 1; chain < kChains; ++chain) sum = V::add_i(sum, dot[chain][c]);
        f[c] = V::fma(V::to_float(sum), V::mul(d, V::set1(a[c]->d[b] * Fmt::kStep)), f[c]);
      }
    });
  }

  [[gnu::always_inline]] static void float_unit(const std::byte* unit, const std::byte* const (&x)[C],
                                                int64_t u, Fetch prefetch, F (&f)[C]) {
    const float* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const float*>(x[c]) + u * Fmt::kItems;
    unroll<Fmt::kItems>([&]<int e>() __attribute__((always_inline)) {
      if constexpr (e % (Fmt::kItems / 4) == 0) prefetch.template at<e / (Fmt::kItems / 4), 4>();
      const F weight = Fmt::template element<e>(unit);
      for (int c = 0; c < C; ++c) f[c] = V::fma(weight, V::set1(a[c][e]), f[c]);
    });
  }
};

// Writes or adds 16 outputs of one panel and one row.
template <class V>
[[gnu::always_inline]] inline void store_outputs(const GemmJob& job, int panel, int row, typename V::F f) {
  float* out = job.out + row * job.out_stride + panel * kPanelRows;
  const int64_t left = job.out_cols - panel * kPanelRows;
  if (job.accumulate) {  // residual widths are multiples of 16: no padded column here
    V::store(out, V::add(V::load(out), f));
  } else if (left >= kPanelRows) {
    V::store(out, f);
  } else {
    V::store_n(out, f, int(left));
  }
}

// One panel times C rows from `row` on, over all units; `next` is the panel to fetch meanwhile, if any is.
// `sums` has room for (C, 16).
template <class V, class Fmt, int C, bool kFetch>
[[gnu::noinline]] void gemm_rows(const GemmJob& job, int panel, int row, const std::byte* next, float* sums) {
  const std::byte* x[C];
  for (int c = 0; c < C; ++c) {
    x[c] = job.x + (row + c) * job.x_stride;
    V::store(sums + kPanelRows * c, V::zero());
  }
  Tile<V, Fmt, C, kFetch>::run(job.panels + panel * job.panel_stride, x, job.units, {next}, sums);
  for (int c = 0; c < C; ++c) store_outputs<V>(job, panel, row + c, V::load(sums + kPanelRows * c));
}

// Rows [row, row + rows) for one panel; rows <= kTileRows. The first group of rows is the one that meets a
// panel when it comes from memory, and fetches the one that follows; of groups after it, which are nearly
// equal, none is smaller than half a tile.
template <class V, class Fmt>
[[gnu::noinline]] void gemm_group(const GemmJob& job, int panel, int row, int rows) {
  alignas(64) float sums[V::kTileRows * kPanelRows];
  if (row == 0) {
    const std::byte* const here = job.panels + panel * job.panel_stride;
    const std::byte* const next = panel + 1 < job.n_panels ? here + job.panel_stride
                                  : job.next_panel         ? job.next_panel
                                                           : here;
    unroll<V::kTileRows>([&]<int i>() {
      if (rows == i + 1) gemm_rows<V, Fmt, i + 1, true>(job, panel, row, next, sums);
    });
  } else {
    constexpr int kFewest = V::kTileRows / 2;
    unroll<V::kTileRows - kFewest + 1>([&]<int i>() {
      if (rows == kFewest + i) gemm_rows<V, Fmt, kFewest + i, false>(job, panel, row, nullptr, sums);
    });
  }
}

// One panel at a time, all rows for each: every weight comes from memory once, and while the first group of
// rows is multiplied the panel that follows is fetched.
template <class V, class Fmt>
void gemm_streaming(const GemmJob& job, int groups) {
  for (int panel = 0; panel < job.n_panels; ++panel) {
    for (int g = 0, row = 0; g < groups; ++g) {
      const int rows = (job.n_rows - row) / (groups - g);
      gemm_group<V, Fmt>(job, panel, row, rows);
      row += rows;
    }
  }
}

// A group of rows at a time, all panels for each: the panels of a job stay in the second-level cache while
// the activations, which may not, pass once.
template <class V, class Fmt>
void gemm_resident(const GemmJob& job, int groups) {
  for (int g = 0, row = 0; g < groups; ++g) {
    const int rows = (job.n_rows - row) / (groups - g);
    for (int panel = 0; panel < job.n_panels; ++panel) gemm_group<V, Fmt>(job, panel, row, rows);
    row += rows;
  }
}

// Groups of at most kTileRows rows, of nearly equal size.
template <class V, class Fmt>
void gemm(const GemmJob& job) {
  const int groups = (job.n_rows + V::kTileRows - 1) / V::kTileRows;
  if (job.n_rows >= kResidentRows)
    gemm_resident<V, Fmt>(job, groups);
  else
    gemm_streaming<V, Fmt>(job, groups);
}

}  // namespace maestrale
