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
// 64-element tables:  f = fma(sum_e table[code[e]] * q[e], d_w * (d_x * step), f)
// floating point:     f = fma(w[e], x[e], f)
// bf16 pairs:         f += w[e] * bf16(x[e]) + w[e + 1] * bf16(x[e + 1]), as vdpbf16ps rounds
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/integer.h"
#include "cpu/formats.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"

namespace maestrale {

// What a thread will read next, in that order: stretches of `length` bytes, of the first of which `left` are
// due from `next` on; from the end of one to the beginning of the following it is `gap` bytes.
struct Upcoming {
  const std::byte* next;
  int64_t left, length, gap;
};

// Brings what comes up into the caches while a tile is computed: `bytes` in a piece of a unit, a line after
// every other step. All at once they would fill the buffers that loads wait in, and memory would idle between
// the bursts. A thread fetches one stretch after the other, as memory likes it, also where its tile reads two
// panels side by side. Where `bytes` is no multiple of a line, the last line is the first of the next piece;
// likewise the end of a stretch is found at the end of a piece only.
template <class V, int64_t bytes, bool kNear>
struct Prefetch {
  Upcoming upcoming;
  int64_t step;  // from what a piece fetches to what the next one does: `bytes`, or less to fetch more slowly

  // What is due at step `step` of `steps` of a piece.
  template <int step, int steps>
  [[gnu::always_inline]] void at() const {
    constexpr int kLines = ceil_div(bytes, 64);
    constexpr int kFirst = kLines * step / steps, kEnd = kLines * (step + 1) / steps;
    unroll<kEnd - kFirst>([&]<int i>() __attribute__((always_inline)) {
      const std::byte* line = upcoming.next + 64 * (kFirst + i);
      if constexpr (kNear)
        V::prefetch_near(line);
      else
        V::prefetch(line);
    });
  }
  [[gnu::always_inline]] void advance() {
    upcoming.next += step;
    upcoming.left -= step;
    if (upcoming.left > 0) return;
    upcoming.next += upcoming.gap;
    upcoming.left = upcoming.length;
  }
};

// R panels times C rows; w[r] and x[c] are the starts of the panels and of the activation rows. sums (C, R,
// 16) are those over the units before and become those including these.
//
// A second panel, where there are registers for it, halves the loads of activations: with one, every dot
// product needs a load of its own. The code of a unit is a loop over pieces, since caches of instructions
// count: the weights that pass through the second-level cache push the code out of it, and where that
// includes what lies in the first level (Zen), a unit of unrolled code would be fetched again and again.
//
// kNear: what is fetched will be read by this very tile, and belongs in the first-level cache.
template <class V, class Fmt, int R, int C, bool kNear>
struct Tile {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int pieces() {
    if constexpr (Fmt::kItems == 256) return Fmt::kItems / (Fmt::kSubItems * Fmt::kGroup);
    return Fmt::kItems == 128 ? 2 : 1;
  }
  static constexpr int64_t kFetchBytes = R * Fmt::kBytes / pieces();  // as many as a piece reads
  using Fetch = Prefetch<V, kFetchBytes, kNear>;
  using Units = const std::byte* const (&)[R];  // the same unit of each panel

  [[gnu::always_inline]] static void run(const std::byte* panels, int64_t panel_stride,
                                         const std::byte* const (&x)[C], int64_t units, Fetch fetch,
                                         float* sums) {
    const std::byte* w[R];
    for (int r = 0; r < R; ++r) w[r] = panels + r * panel_stride;
    F f[C][R];
    if constexpr (Fmt::kItems != 256) each([&](int c, int r) { f[c][r] = V::load(sums + at(c, r)); });
    for (int64_t u = 0; u < units; ++u) {
      if constexpr (requires { Fmt::kPairs; })
        pair_unit(w, x, u, fetch, f);
      else if constexpr (!requires { typename Fmt::Block; })
        float_unit(w, x, u, fetch, f);
      else if constexpr (Fmt::kItems == 256)
        super_block(w, x, u, fetch, sums);
      else if constexpr (Fmt::kItems == 128)
        table_pair(w, x, u, fetch, f);
      else
        block_pair(w, x, u, fetch, f);
      for (int r = 0; r < R; ++r) w[r] += Fmt::kBytes;
    }
    if constexpr (Fmt::kItems != 256) each([&](int c, int r) { V::store(sums + at(c, r), f[c][r]); });
  }

 private:
  static constexpr int at(int c, int r) { return kPanelRows * (c * R + r); }

  // fn(c, r) for every row and panel.
  template <class Fn>
  [[gnu::always_inline]] static void each(Fn&& fn) {
    for (int c = 0; c < C; ++c)
      for (int r = 0; r < R; ++r) fn(c, r);
  }

  // The sums stay in memory: registers are short here, and when GCC puts them on the stack by itself, reading
  // them back stalls Zen 4 for a sixth of the time.
  [[gnu::always_inline]] static void super_block(Units w, const std::byte* const (&x)[C], int64_t u,
                                                 Fetch& fetch, float* sums) {
    const Activation256* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation256*>(x[c]) + u;
    I s[C][R];
    each([&](int c, int r) { s[c][r] = V::zero_i(); });
    for (int64_t g = 0; g < pieces(); ++g, fetch.advance()) {
      if constexpr (Fmt::kSubItems == 16)
        unroll<Fmt::kGroup / 2>([&]<int p>()
                                    __attribute__((always_inline)) { add_pair<p>(w, a, g, fetch, s); });
      else
        unroll<Fmt::kGroup>([&]<int b>()
                                __attribute__((always_inline)) { add_sub_block<b>(w, a, g, fetch, s); });
    }
    F sum[C][R];
    for (int r = 0; r < R; ++r) {
      const F d = Fmt::kHasMins ? V::load_f16(w[r] + Fmt::kD)
                                : V::load(reinterpret_cast<const float*>(w[r] + Fmt::kD));
      for (int c = 0; c < C; ++c) sum[c][r] = V::mul(V::to_float(s[c][r]), d);
    }
    if constexpr (Fmt::kHasMins) {
      each([&](int c, int r) { s[c][r] = V::zero_i(); });
      unroll<Fmt::kItems / Fmt::kSubItems / 2>([&]<int p>() __attribute__((always_inline)) {
        add_minima<p>(w, a, s);
      });
      for (int r = 0; r < R; ++r) {
        const F minus_dmin = V::sub(V::zero(), V::load_f16(w[r] + Fmt::kDmin));
        for (int c = 0; c < C; ++c) sum[c][r] = V::fma(V::to_float(s[c][r]), minus_dmin, sum[c][r]);
      }
    }
    asm("" : "+r"(sums));  // the compiler cannot know that it is the same address for every unit
    each([&](int c, int r) {
      V::store(sums + at(c, r), V::fma(sum[c][r], V::set1(a[c]->d), V::load(sums + at(c, r))));
    });
  }

  // s += the dot products of sub-block b of group g times its scales.
  template <int b>
  [[gnu::always_inline]] static void add_sub_block(Units w, const Activation256* const (&a)[C], int64_t g,
                                                   const Fetch& fetch, I (&s)[C][R]) {
    I dot[C][R];
    for (int c = 0; c < C; ++c) {
      static_assert(Fmt::kOffset == 0 || Fmt::kOffset == 128);
      const I start = Fmt::kOffset == 0 ? V::zero_i() : V::broadcast4(a[c]->start32 + Fmt::kGroup * g + b);
      for (int r = 0; r < R; ++r) dot[c][r] = start;
    }
    add_lines<b, b>(w, a, g, fetch, dot);
    for (int r = 0; r < R; ++r) {
      const I scale = Fmt::template scale<b>(w[r], g);
      for (int c = 0; c < C; ++c) s[c][r] = add_scaled(s[c][r], dot[c][r], scale);
    }
  }

  // s + dot * scale. A sum of 16 bits is multiplied by (scale, 0), which is one instruction: its upper half,
  // the sign, does not count.
  [[gnu::always_inline]] static I add_scaled(I s, I dot, I scale) {
    if constexpr (Fmt::kWide)
      return V::add_i(s, V::mul_i(dot, scale));
    else
      return V::dot2(s, dot, scale);
  }

  // The same for pair p of sub-blocks of 16 elements, whose scales would be a fifth of all multiplications:
  // one dot product in each half of a lane, so that one instruction multiplies both. The sum of the second
  // one moves to the upper half before the first one is added. While they are made both are kBias too large,
  // and so never negative, or the lower one would borrow from the upper one.
  template <int p>
  [[gnu::always_inline]] static void add_pair(Units w, const Activation256* const (&a)[C], int64_t g,
                                              const Fetch& fetch, I (&s)[C][R]) {
    static_assert(!Fmt::kWide);
    I dot[C][R];
    for (int c = 0; c < C; ++c) {
      const I start = shared(two_starts(a[c]->start16 + Fmt::kGroup * g + 2 * p));
      for (int r = 0; r < R; ++r) dot[c][r] = start;
    }
    add_lines<2 * p + 1, 2 * p>(w, a, g, fetch, dot);
    each([&](int c, int r) { dot[c][r] = V::swap_halves(dot[c][r]); });
    add_lines<2 * p, 2 * p + 1>(w, a, g, fetch, dot);
    for (int r = 0; r < R; ++r) {
      const I scales = Fmt::template scales<p>(w[r], g);
      for (int c = 0; c < C; ++c)
        s[c][r] = V::dot2(s[c][r], V::sub_halves(dot[c][r], V::set1_i(kBiases)), scales);
    }
  }

  // What the sums of a pair start with: kBias - offset * sum of their activations, which turns unsigned codes
  // into signed ones.
  static constexpr int32_t kBias = Fmt::kOffset == 4 ? 0x1000 : 0x8000, kBiases = kBias << 16 | kBias;
  [[gnu::always_inline]] static I two_starts(const uint16_t* start16) {
    static_assert(Fmt::kOffset == 0 || Fmt::kOffset == 4 || Fmt::kOffset == 32);
    if constexpr (Fmt::kOffset == 0)
      return V::set1_i(kBiases);
    else if constexpr (Fmt::kOffset == 4)
      return V::template shr_halves<3>(V::broadcast4(start16));
    else
      return V::broadcast4(start16);
  }

  // dot += the lines of sub-block b of group g, which are the `nth` that the piece reads.
  template <int b, int nth>
  [[gnu::always_inline]] static void add_lines(Units w, const Activation256* const (&a)[C], int64_t g,
                                               const Fetch& fetch, I (&dot)[C][R]) {
    constexpr int kLines = Fmt::kSubItems / 4;
    unroll<kLines>([&]<int l>() __attribute__((always_inline)) {
      fetch.template at<kLines * nth + l, Fmt::kGroup * kLines>();
      I code[R];
      for (int r = 0; r < R; ++r) code[r] = Fmt::template operand<b, l>(w[r], g);
      add_line(code, a, 4 * (kLines * (Fmt::kGroup * g + b) + l), dot);
    });
  }

  // dot += a line of codes times four activations of each row.
  template <class Activation>
  [[gnu::always_inline]] static void add_line(const I (&code)[R], const Activation* const (&a)[C],
                                              int64_t item, I (&dot)[C][R]) {
    for (int c = 0; c < C; ++c) {
      const I q = shared(V::broadcast4(a[c]->q + item));
      for (int r = 0; r < R; ++r) dot[c][r] = V::template dot4<Fmt::kWide>(dot[c][r], code[r], q);
    }
  }

  // An operand that several panels use is loaded once: the compiler would rather load it in each instruction.
  template <class T>
  [[gnu::always_inline]] static T shared(T x) {
    if constexpr (R > 1) V::keep(x);
    return x;
  }

  // s += the minima of pair p of sub-blocks times the sums of their activations.
  template <int p>
  [[gnu::always_inline]] static void add_minima(Units w, const Activation256* const (&a)[C], I (&s)[C][R]) {
    for (int r = 0; r < R; ++r) {
      const I minima = Fmt::template minima<p>(w[r]);
      for (int c = 0; c < C; ++c) {
        const int16_t* item_sums = Fmt::kSubItems == 32 ? a[c]->sum32 : a[c]->sum16;
        s[c][r] = V::dot2(s[c][r], minima, V::broadcast4(item_sums + 2 * p));
      }
    }
  }

  [[gnu::always_inline]] static void block_pair(Units w, const std::byte* const (&x)[C], int64_t u,
                                                Fetch& fetch, F (&f)[C][R]) {
    const Activation64* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation64*>(x[c]) + u;
    unroll<2>([&]<int b>() __attribute__((always_inline)) {
      I dot[C][R];
      for (int c = 0; c < C; ++c) {
        const I first = block_start(a[c]->sum + b);
        for (int r = 0; r < R; ++r) dot[c][r] = first;
      }
      unroll<8>([&]<int l>() __attribute__((always_inline)) {
        fetch.template at<8 * b + l, 16>();
        I code[R];
        for (int r = 0; r < R; ++r) code[r] = Fmt::template operand<b, l>(w[r]);
        add_line(code, a, 4 * (8 * b + l), dot);
      });
      for (int r = 0; r < R; ++r) {
        const F d = V::load_f16(w[r] + Fmt::kD + 32 * b);
        for (int c = 0; c < C; ++c) {
          const F dx = V::set1(a[c]->d[b]);
          f[c][r] = V::fma(V::to_float(dot[c][r]), V::mul(d, dx), f[c][r]);
          if constexpr (Fmt::kHasMins)
            f[c][r] = V::fma(V::to_float(V::broadcast4(a[c]->sum + b)),
                             V::mul(V::load_f16(w[r] + Fmt::kM + 32 * b), dx), f[c][r]);
        }
      }
    });
    fetch.advance();
  }

  // -offset * sum of a block's activations, as in two_starts().
  [[gnu::always_inline]] static I block_start(const int32_t* sum) {
    if constexpr (Fmt::kOffset == 0) return V::zero_i();
    constexpr int kShift = Fmt::kOffset == 8 ? 3 : Fmt::kOffset == 16 ? 4 : 7;
    static_assert(Fmt::kOffset == 0 || Fmt::kOffset == 1 << kShift);
    return V::sub_i(V::zero_i(), V::template shl<kShift>(V::broadcast4(sum)));
  }

  // Two blocks of table indices times 16-bit activations. Few outputs take several sums each, since a dot
  // product takes longer than the next one would have to wait.
  [[gnu::always_inline]] static void table_pair(Units w, const std::byte* const (&x)[C], int64_t u,
                                                Fetch& fetch, F (&f)[C][R]) {
    constexpr int kChains = C * R >= 8 ? 1 : C * R >= 4 ? 2 : 4;
    const typename V::Halves table = Fmt::table();
    const Activation128* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const Activation128*>(x[c]) + u;
    for (int64_t b = 0; b < 2; ++b, fetch.advance()) {
      I dot[kChains][C][R];
      for (auto& chain : dot) each([&](int c, int r) { chain[c][r] = V::zero_i(); });
      unroll<8>([&]<int l>() __attribute__((always_inline)) {
        fetch.template at<l, 8>();
        I line[R];
        for (int r = 0; r < R; ++r) line[r] = V::line(w[r] + Fmt::kCodes + 64 * (8 * b + l));
        unroll<4>([&]<int j>() __attribute__((always_inline)) {
          I weight[R];
          for (int r = 0; r < R; ++r) weight[r] = Fmt::template pairs<j>(table, line[r]);
          for (int c = 0; c < C; ++c) {
            const I q = shared(V::broadcast4(a[c]->q + 64 * b + 8 * l + 2 * j));
            for (int r = 0; r < R; ++r)
              dot[j % kChains][c][r] = V::dot2(dot[j % kChains][c][r], weight[r], q);
          }
        });
      });
      for (int r = 0; r < R; ++r) {
        const F d = V::load_f16(w[r] + Fmt::kD + 32 * b);
        for (int c = 0; c < C; ++c) {
          I sum = dot[0][c][r];
          for (int chain = 1; chain < kChains; ++chain) sum = V::add_i(sum, dot[chain][c][r]);
          f[c][r] = V::fma(V::to_float(sum), V::mul(d, V::set1(a[c]->d[b] * Fmt::kStep)), f[c][r]);
        }
      }
    }
  }

  [[gnu::always_inline]] static void float_unit(Units w, const std::byte* const (&x)[C], int64_t u,
                                                Fetch& fetch, F (&f)[C][R]) {
    const float* a[C];
    for (int c = 0; c < C; ++c) a[c] = reinterpret_cast<const float*>(x[c]) + u * Fmt::kItems;
    unroll<Fmt::kItems>([&]<int e>() __attribute__((always_inline)) {
      fetch.template at<e, Fmt::kItems>();
      F weight[R];
      for (int r = 0; r < R; ++r) weight[r] = Fmt::template element<e>(w[r]);
      for (int c = 0; c < C; ++c) {
        const F value = shared(V::set1(a[c][e]));
        for (int r = 0; r < R; ++r) f[c][r] = V::fma(weight[r], value, f[c][r]);
      }
    });
    fetch.advance();
  }

  // Weights and activations in bf16, two at a time: the one kind of product whose bits are not the scalar
  // ones.
  [[gnu::always_inline]] static void pair_unit(Units w, const std::byte* const (&x)[C], int64_t u,
                                               Fetch& fetch, F (&f)[C][R]) {
    static_assert(Fmt::kItems == 16);
    uint32_t pairs[C][8];
    for (int c = 0; c < C; ++c)
      V::store_bf16(pairs[c], V::load(reinterpret_cast<const float*>(x[c]) + u * Fmt::kItems));
    unroll<8>([&]<int p>() __attribute__((always_inline)) {
      fetch.template at<p, 8>();
      I weight[R];
      for (int r = 0; r < R; ++r) weight[r] = V::line(w[r] + 64 * p);
      for (int c = 0; c < C; ++c) {
        const I pair = shared(V::broadcast4(pairs[c] + p));
        for (int r = 0; r < R; ++r) f[c][r] = V::dot_bf16(f[c][r], weight[r], pair);
      }
    });
    fetch.advance();
  }
};

}  // namespace maestrale
