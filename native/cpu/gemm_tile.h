// SPDX-License-Identifier: Apache-2.0
// The only matrix multiplication on the CPU: R panels of 16 weight rows times C activation rows, for
// every format and instruction set. Inside a unit everything is int32 and exact; across units one
// fused multiply-add chain per output, in ascending order of the input dimension. So an output's bits
// depend on its weight row and its activation row only: not on tile shape, batch, threads or ISA.
//
// 256-element units:  S = sum_b scale[b] * sum_e (code[e] - offset) * q[e]
//                     f = fma(S * d_w, d_x, f);  with minima T = sum_b min[b] * sum_e q[e]:
//                     f = fma(fma(-T, dmin_w, S * d_w), d_x, f)
// 32-element blocks:  f = fma(sum_e (code[e] - offset) * q[e], d_w * d_x, f);
//                     with minima f = fma(sum_e q[e], m_w * d_x, f)
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

// Brings the weights of the next panels into the second-level cache while the current ones are multiplied.
struct Prefetch {
  const std::byte* next;  // null: nothing to fetch
  int64_t bytes_per_unit;
};

// One tile; w[r] and x[c] are the starts of the panels and activation rows. f[r][c] holds the sums over the
// units before and receives the sums including these.
template <class V, class Fmt, int R, int C>
struct Tile {
  using F = typename V::F;
  using I = typename V::I;

  [[gnu::always_inline]] static void run(const std::byte* const (&w)[R], const std::byte* const (&x)[C],
                                         int64_t units, Prefetch prefetch, F (&f)[R][C]) {
    for (int64_t u = 0; u < units; ++u) {
      const std::byte* unit[R];
      for (int r = 0; r < R; ++r) unit[r] = w[r] + u * Fmt::kBytes;
      for (int64_t line = 0; line < prefetch.bytes_per_unit; line += 64) V::prefetch(prefetch.next + line);
      prefetch.next += prefetch.bytes_per_unit;
      if constexpr (!requires { typename Fmt::Block; })
        float_unit(unit, x, u, f);
      else if constexpr (Fmt::kItems == 256)
        super_block(unit, x, u, f);
      else
        block_pair(unit, x, u, f);
    }
  }

 private:
  [[gnu::always_inline]] static void super_block(const std::byte* const (&unit)[R],
                                                 const std::byte* const (&x)[C], int64_t u, F (&f)[R][C]) {
    constexpr int kSubs = Fmt::kItems / Fmt::kSubItems;
    const Activation256* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation256*>(x[c]) + u;
    I s[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) s[r][c] = V::zero_i();
    if constexpr (Fmt::kWide) {  // sub-block sums need more than 16 bits
      unroll<kSubs>([&]<int b>() __attribute__((always_inline)) {
        I dot[R][C];
        for (int c = 0; c < C; ++c) {
          const I bias = offset_sum<b>(a[c]);
          for (int r = 0; r < R; ++r) dot[r][c] = bias;
        }
        add_sub_block<b>(unit, a, dot);
        for (int r = 0; r < R; ++r) {
          const I scale = Fmt::template scale<b>(unit[r]);
          for (int c = 0; c < C; ++c) s[r][c] = V::add_i(s[r][c], V::mul_i(dot[r][c], scale));
        }
      });
    } else {
      // Two sub-block sums share a lane, the even one in the upper half: half as many multiplications by
      // scales, which compete with the dot products for the same execution units. 2^15 is added to the lower
      // half while it accumulates, so that it never borrows from the upper one.
      const I half = V::set1_i(0x8000);
      unroll<kSubs / 2>([&]<int p>() __attribute__((always_inline)) {
        I dot[R][C];
        for (int c = 0; c < C; ++c) {
          const I bias = offset_sum<2 * p>(a[c]);
          for (int r = 0; r < R; ++r) dot[r][c] = bias;
        }
        add_sub_block<2 * p>(unit, a, dot);
        for (int c = 0; c < C; ++c) {
          const I bias = V::add_i(half, offset_sum<2 * p + 1>(a[c]));
          for (int r = 0; r < R; ++r) dot[r][c] = V::add_i(V::template shl<16>(dot[r][c]), bias);
        }
        add_sub_block<2 * p + 1>(unit, a, dot);
        for (int r = 0; r < R; ++r) {
          const I scales =
              pair_up<V>(Fmt::template scale<2 * p + 1>(unit[r]), Fmt::template scale<2 * p>(unit[r]));
          for (int c = 0; c < C; ++c) s[r][c] = V::dot2(s[r][c], V::xor_i(dot[r][c], half), scales);
        }
      });
    }
    F sum[R][C];
    for (int r = 0; r < R; ++r) {
      const F d = Fmt::kHasMins ? V::load_f16(unit[r] + Fmt::kD)
                                : V::load(reinterpret_cast<const float*>(unit[r] + Fmt::kD));
      for (int c = 0; c < C; ++c) sum[r][c] = V::mul(V::to_float(s[r][c]), d);
    }
    if constexpr (Fmt::kHasMins) {
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) s[r][c] = V::zero_i();
      unroll<kSubs / 2>([&]<int p>() __attribute__((always_inline)) {
        for (int r = 0; r < R; ++r) {
          const I mins =
              pair_up<V>(Fmt::template minimum<2 * p>(unit[r]), Fmt::template minimum<2 * p + 1>(unit[r]));
          for (int c = 0; c < C; ++c) {
            const int16_t* sums = Fmt::kSubItems == 32 ? a[c]->sum32 : a[c]->sum16;
            s[r][c] = V::dot2(s[r][c], mins, V::broadcast4(sums + 2 * p));
          }
        }
      });
      for (int r = 0; r < R; ++r) {
        const F minus_dmin = V::sub(V::zero(), V::load_f16(unit[r] + Fmt::kDmin));
        for (int c = 0; c < C; ++c) sum[r][c] = V::fma(V::to_float(s[r][c]), minus_dmin, sum[r][c]);
      }
    }
    for (int c = 0; c < C; ++c) {
      const F d = V::set1(a[c]->d);
      for (int r = 0; r < R; ++r) f[r][c] = V::fma(sum[r][c], d, f[r][c]);
    }
  }

  // dot += codes of sub-block b times activations
  template <int b>
  [[gnu::always_inline]] static void add_sub_block(const std::byte* const (&unit)[R],
                                                   const Activation256* const (&a)[C], I (&dot)[R][C]) {
    constexpr int kLines = Fmt::kSubItems / 4;
    unroll<kLines>([&]<int l>() __attribute__((always_inline)) {
      I code[R];
      for (int r = 0; r < R; ++r) code[r] = Fmt::template operand<b, l>(unit[r]);
      for (int c = 0; c < C; ++c) {
        const I q = V::broadcast4(a[c]->q + 4 * (b * kLines + l));
        for (int r = 0; r < R; ++r) dot[r][c] = V::template dot4<Fmt::kWide>(dot[r][c], code[r], q);
      }
    });
  }

  // What turns unsigned codes of sub-block b into signed ones: -offset * sum of its activations.
  template <int b>
  [[gnu::always_inline]] static I offset_sum(const Activation256* a) {
    if constexpr (Fmt::kOffsetShift == 0)
      return V::zero_i();
    else if constexpr (Fmt::kSubItems == 16)
      return V::template shl<Fmt::kOffsetShift>(V::broadcast4(a->minus16 + b));
    else
      return V::template shl<Fmt::kOffsetShift>(
          V::add_i(V::broadcast4(a->minus16 + 2 * b), V::broadcast4(a->minus16 + 2 * b + 1)));
  }

  [[gnu::always_inline]] static void block_pair(const std::byte* const (&unit)[R],
                                                const std::byte* const (&x)[C], int64_t u, F (&f)[R][C]) {
    const Activation64* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation64*>(x[c]) + u;
    unroll<2>([&]<int b>() __attribute__((always_inline)) {
      I dot[R][C];
      for (int c = 0; c < C; ++c) {
        const I bias = V::set1_i(-Fmt::kOffset * a[c]->sum[b]);
        for (int r = 0; r < R; ++r) dot[r][c] = bias;
      }
      unroll<8>([&]<int l>() __attribute__((always_inline)) {
        I code[R];
        for (int r = 0; r < R; ++r) code[r] = Fmt::template operand<b, l>(unit[r]);
        for (int c = 0; c < C; ++c) {
          const I q = V::broadcast4(a[c]->q + 4 * (b * 8 + l));
          for (int r = 0; r < R; ++r) dot[r][c] = V::template dot4<Fmt::kWide>(dot[r][c], code[r], q);
        }
      });
      for (int r = 0; r < R; ++r) {
        const F d = V::load_f16(unit[r] + Fmt::kD + 32 * b);
        for (int c = 0; c < C; ++c) {
          const F dx = V::set1(a[c]->d[b]);
          f[r][c] = V::fma(V::to_float(dot[r][c]), V::mul(d, dx), f[r][c]);
          if constexpr (Fmt::kHasMins)
            f[r][c] = V::fma(V::set1(float(a[c]->sum[b])),
                             V::mul(V::load_f16(unit[r] + Fmt::kM + 32 * b), dx), f[r][c]);
        }
      }
    });
  }

  [[gnu::always_inline]] static void float_unit(const std::byte* const (&unit)[R],
                                                const std::byte* const (&x)[C], int64_t u, F (&f)[R][C]) {
    const float* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const float*>(x[c]) + u * Fmt::kItems;
    unroll<Fmt::kItems>([&]<int e>() __attribute__((always_inline)) {
      F weight[R];
      for (int r = 0; r < R; ++r) weight[r] = Fmt::template element<e>(unit[r]);
      for (int c = 0; c < C; ++c) {
        const F value = V::set1(a[c][e]);
        for (int r = 0; r < R; ++r) f[r][c] = V::fma(weight[r], value, f[r][c]);
      }
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

// The product of R panels and C rows over all units, from `panel` and `row` of the job on. Where the job ends
// within the R panels the last one is multiplied again and its copy dropped.
template <class V, class Fmt, int R, int C>
[[gnu::noinline]] void gemm_rows(const GemmJob& job, int panel, int row, Prefetch prefetch) {
  const std::byte* w[R];
  const std::byte* x[C];
  typename V::F f[R][C];
  for (int r = 0; r < R; ++r) {
    const int at = panel + r < job.n_panels ? panel + r : job.n_panels - 1;
    w[r] = job.panels + at * job.panel_stride;
  }
  for (int c = 0; c < C; ++c) x[c] = job.x + (row + c) * job.x_stride;
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) f[r][c] = V::zero();
  Tile<V, Fmt, R, C>::run(w, x, job.units, prefetch, f);
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < R && panel + r < job.n_panels; ++r)
      store_outputs<V>(job, panel + r, row + c, f[r][c]);
}

// Rows [row, row + rows) of the job for R panels; rows <= kTileRows.
template <class V, class Fmt, int R>
[[gnu::noinline]] void gemm_group(const GemmJob& job, int panel, int row, int rows, Prefetch prefetch) {
  unroll<V::kTileRows>([&]<int c>() {
    if (rows == c + 1) gemm_rows<V, Fmt, R, c + 1>(job, panel, row, prefetch);
  });
}

// R panels at a time, all rows for each: every weight comes from memory once, and each group of rows fetches
// its share of the R panels that follow.
template <class V, class Fmt, int R>
void gemm_streaming(const GemmJob& job, int groups) {
  const int64_t share = (R * Fmt::kBytes / groups + 63) / 64 * 64;
  for (int panel = 0; panel < job.n_panels; panel += R) {
    const bool more = panel + 2 * R <= job.n_panels;
    Prefetch prefetch{job.panels + (panel + R) * job.panel_stride, more ? share : 0};
    for (int g = 0, row = 0; g < groups; ++g) {
      const int rows = (job.n_rows - row + groups - g - 1) / (groups - g);
      gemm_group<V, Fmt, R>(job, panel, row, rows, prefetch);
      row += rows;
      prefetch.next += job.units * share;
    }
  }
}

// A group of rows at a time, all panels for each: the panels of a job stay in the second-level cache while
// the activations, which may not, pass once.
template <class V, class Fmt, int R>
void gemm_resident(const GemmJob& job, int groups) {
  for (int g = 0, row = 0; g < groups; ++g) {
    const int rows = (job.n_rows - row + groups - g - 1) / (groups - g);
    for (int panel = 0; panel < job.n_panels; panel += R)
      gemm_group<V, Fmt, R>(job, panel, row, rows, {nullptr, 0});
    row += rows;
  }
}

// Groups of at most kTileRows rows, of nearly equal size.
template <class V, class Fmt>
void gemm(const GemmJob& job) {
  const int groups = (job.n_rows + V::kTileRows - 1) / V::kTileRows;
  if (job.n_rows >= kResidentRows)
    gemm_resident<V, Fmt, V::kTilePanels>(job, groups);
  else
    gemm_streaming<V, Fmt, V::kTilePanels>(job, groups);
}

}  // namespace maestrale
