// SPDX-License-Identifier: Apache-2.0
// The only matrix multiplication on the CPU: R panels of 16 weight rows times C activation rows, for
// every format and instruction set. Inside a unit everything is int32 and exact; across units one
// fused multiply-add chain per output, in ascending order of the input dimension. So an output's bits
// depend on its weight row and its activation row only: not on tile shape, batch, threads or ISA.
//
// 256-element units:  S = sum_b scale[b] * sum_e (code[e] - offset) * q[e]
//                     f = fma(S, d_w * d_x, f);  with minima T = sum_b min[b] * sum_e q[e]:
//                     f = fma(T, -(dmin_w * d_x), f)
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
  [&]<int... i>(std::integer_sequence<int, i...>) { (fn.template operator()<i>(), ...); }
  (std::make_integer_sequence<int, N>{});
}

// One tile; w[r] and x[c] are the starts of the panels and activation rows, out[r][c] its results.
template <class V, class Fmt, int R, int C>
struct Tile {
  using F = typename V::F;
  using I = typename V::I;

  [[gnu::always_inline]] static void run(const std::byte* const (&w)[R], const std::byte* const (&x)[C],
                                         int64_t units, F (&out)[R][C]) {
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) out[r][c] = V::zero();
    for (int64_t u = 0; u < units; ++u) {
      const std::byte* unit[R];
      for (int r = 0; r < R; ++r) {
        unit[r] = w[r] + u * Fmt::kBytes;
        prefetch(unit[r]);
      }
      if constexpr (!requires { typename Fmt::Block; })
        float_unit(unit, x, u, out);
      else if constexpr (Fmt::kItems == 256)
        super_block(unit, x, u, out);
      else
        block_pair(unit, x, u, out);
    }
  }

 private:
  // Weights stream through the caches once a pass; hardware prefetchers stop at page borders.
  [[gnu::always_inline]] static void prefetch(const std::byte* unit) {
    constexpr int kAhead = 2 * 2304;  // bytes, about two units of Q4_K
    for (int line = 0; line < Fmt::kBytes; line += 64) V::prefetch(unit + kAhead + line);
  }

  [[gnu::always_inline]] static void super_block(const std::byte* const (&unit)[R],
                                                 const std::byte* const (&x)[C], int64_t u, F (&f)[R][C]) {
    constexpr int kSubs = Fmt::kItems / Fmt::kSubItems, kLines = Fmt::kSubItems / 4;
    const Activation256* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation256*>(x[c]) + u;
    I s[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) s[r][c] = V::zero_i();
    unroll<kSubs>([&]<int b>() __attribute__((always_inline)) {
      I dot[R][C];
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) dot[r][c] = V::zero_i();
      unroll<kLines>([&]<int l>() __attribute__((always_inline)) {
        I code[R];
        for (int r = 0; r < R; ++r) code[r] = Fmt::template operand<b, l>(unit[r]);
        for (int c = 0; c < C; ++c) {
          const I q = V::broadcast4(a[c]->q + 4 * (b * kLines + l));
          for (int r = 0; r < R; ++r) dot[r][c] = V::template dot4<Fmt::kWide>(dot[r][c], code[r], q);
        }
      });
      for (int r = 0; r < R; ++r) {
        const I scale = Fmt::template scale<b>(unit[r]);
        for (int c = 0; c < C; ++c) s[r][c] = V::add_i(s[r][c], V::mul_i(dot[r][c], scale));
      }
    });
    I t[R][C];  // sum_b of minima or scales times the activation sums
    if constexpr (Fmt::kHasMins || Fmt::kOffset != 0) {
      for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) t[r][c] = V::zero_i();
      unroll<kSubs / 2>([&]<int p>() __attribute__((always_inline)) {
        I pair[R];
        for (int r = 0; r < R; ++r) pair[r] = Fmt::template pair<p>(unit[r]);
        for (int c = 0; c < C; ++c) {
          const int16_t* sums = Fmt::kSubItems == 32 ? a[c]->sum32 : a[c]->sum16;
          const I q = V::broadcast4(sums + 2 * p);
          for (int r = 0; r < R; ++r) t[r][c] = V::dot2(t[r][c], pair[r], q);
        }
      });
    }
    for (int r = 0; r < R; ++r) {
      const F d = Fmt::kHasMins ? V::load_f16(unit[r] + Fmt::kD)
                                : V::load(reinterpret_cast<const float*>(unit[r] + Fmt::kD));
      for (int c = 0; c < C; ++c) {
        const F dx = V::set1(a[c]->d);
        I sum = s[r][c];
        if constexpr (Fmt::kOffset != 0) sum = V::sub_i(sum, V::mul_i(t[r][c], V::set1_i(Fmt::kOffset)));
        f[r][c] = V::fma(V::to_float(sum), V::mul(d, dx), f[r][c]);
        if constexpr (Fmt::kHasMins) {
          const F dmin = V::mul(V::load_f16(unit[r] + Fmt::kDmin), dx);
          f[r][c] = V::fma(V::to_float(t[r][c]), V::sub(V::zero(), dmin), f[r][c]);
        }
      }
    }
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

template <class V, class Fmt, int R, int C>
void gemm_rows(const GemmJob& job, int panel, int row) {
  const std::byte* w[R];
  const std::byte* x[C];
  for (int r = 0; r < R; ++r) w[r] = job.panels + (panel + r) * job.panel_stride;
  for (int c = 0; c < C; ++c) x[c] = job.x + (row + c) * job.x_stride;
  typename V::F f[R][C];
  Tile<V, Fmt, R, C>::run(w, x, job.units, f);
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < R; ++r) {
      float* out = job.out + (row + c) * job.out_stride + (panel + r) * kPanelRows;
      const int64_t left = job.out_cols - (panel + r) * kPanelRows;
      if (job.accumulate) {  // padded columns are never accumulated: residual widths are multiples of 16
        V::store(out, V::add(V::load(out), f[r][c]));
      } else if (left >= kPanelRows) {
        V::store(out, f[r][c]);
      } else {
        V::store_n(out, f[r][c], int(left));
      }
    }
}

// All rows of the job for R panels, in groups of at most kTileRows of nearly equal size.
template <class V, class Fmt, int R>
void gemm_panels(const GemmJob& job, int panel) {
  const int groups = (job.n_rows + V::kTileRows - 1) / V::kTileRows;
  for (int g = 0, row = 0; g < groups; ++g) {
    const int rows = (job.n_rows - row + groups - g - 1) / (groups - g);
    unroll<V::kTileRows>([&]<int c>() {
      if (rows == c + 1) gemm_rows<V, Fmt, R, c + 1>(job, panel, row);
    });
    row += rows;
  }
}

template <class V, class Fmt>
void gemm(const GemmJob& job) {
  int panel = 0;
  for (; panel + V::kTilePanels <= job.n_panels; panel += V::kTilePanels)
    gemm_panels<V, Fmt, V::kTilePanels>(job, panel);
  if constexpr (V::kTilePanels > 1)
    for (; panel < job.n_panels; ++panel) gemm_panels<V, Fmt, 1>(job, panel);
}

}  // namespace maestrale
