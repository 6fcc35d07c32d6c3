// SPDX-License-Identifier: Apache-2.0
#include "cpu/matmul.h"

#include <algorithm>

#include "base/integer.h"

namespace maestrale {
namespace {

// Quantised rows start 64 bytes off a power of two, so that rows of one tile do not share cache sets.
int64_t q256_stride(int64_t cols) { return ceil_div(cols, 256) * int64_t(sizeof(Activation256)) + 64; }
int64_t q64_stride(int64_t cols) { return ceil_div(cols, 64) * int64_t(sizeof(Activation64)) + 64; }

int64_t q128_stride(int64_t cols) { return ceil_div(cols, 128) * int64_t(sizeof(Activation128)) + 64; }

// Sums of a job that are not complete yet.
uint64_t partial_floats(int32_t n_rows) { return uint64_t(n_rows) * kResidentPanels * kPanelRows; }

int64_t panels_of(const Matrix& weight) { return panel_count(weight.rows); }

const std::byte* panel_at(const Matrix& weight, int64_t panel) {
  return weight.data + panel * int64_t(panel_bytes(weight.type, weight.cols));
}

// Of `total` panels of `weight` and matrices like it, those that a thread takes at a time: as many as stay
// cached, or so few that threads finish together. What a few rows read is one stream, which should be long;
// yet of small matrices each of many threads gets a part. An even number, since tiles may be two panels wide.
int64_t panel_grain(const Matrix& weight, int64_t total, int32_t n_rows, int threads) {
  if (n_rows >= kResidentRows) return kResidentPanels;
  if (n_rows <= kNearRows) return 2 * std::clamp<int64_t>(total / (32 * threads), 1, 4);
  return 2 * std::clamp<int64_t>(kStreamedBytes / (2 * int64_t(panel_bytes(weight.type, weight.cols))), 1, 4);
}

}  // namespace

void CpuMatmul::reserve(Tensor x, int32_t n_rows, std::span<const Matrix* const> weights) {
  use_q256_ = use_q64_ = use_q128_ = false;
  for (const Matrix* weight : weights) {
    use_q256_ |= activation_form(weight->type) == ActivationForm::kQ256;
    use_q64_ |= activation_form(weight->type) == ActivationForm::kQ64;
    use_q128_ |= activation_form(weight->type) == ActivationForm::kQ128;
  }
  if (use_q256_) q256_.grow(uint64_t(n_rows * q256_stride(x.cols)), "activations");
  if (use_q64_) q64_.grow(uint64_t(n_rows * q64_stride(x.cols)), "activations");
  if (use_q128_) q128_.grow(uint64_t(n_rows * q128_stride(x.cols)), "activations");
  partial_.grow(uint64_t(pool_.size()) * partial_floats(n_rows) * sizeof(float), "activations");
}

void CpuMatmul::quantise(Tensor x, int32_t n_rows, int worker) {
  if (!use_q256_ && !use_q64_ && !use_q128_) return;
  // A single row is split along its columns instead, in whole units.
  const int64_t piece = n_rows > 1 ? x.cols : 1024;
  const int64_t pieces = ceil_div(x.cols, piece);
  pool_.share(0, worker, n_rows * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces, col = i % pieces * piece;
      const int64_t cols = std::min(piece, x.cols - col);
      const float* source = x.data + row * x.cols + col;
      if (use_q256_)
        kernels_.quantize_q256(
            source, cols,
            q256_.data() + row * q256_stride(x.cols) + col / 256 * int64_t(sizeof(Activation256)));
      if (use_q64_)
        kernels_.quantize_q64(
            source, cols, q64_.data() + row * q64_stride(x.cols) + col / 64 * int64_t(sizeof(Activation64)));
      if (use_q128_)
        kernels_.quantize_q128(
            source, cols,
            q128_.data() + row * q128_stride(x.cols) + col / 128 * int64_t(sizeof(Activation128)));
    }
  });
  pool_.barrier();
}

CpuMatmul::Activations CpuMatmul::activations(Tensor x, QuantType type) const {
  switch (activation_form(type)) {
    case ActivationForm::kQ256: return {q256_.data(), q256_stride(x.cols)};
    case ActivationForm::kQ64: return {q64_.data(), q64_stride(x.cols)};
    case ActivationForm::kQ128: return {q128_.data(), q128_stride(x.cols)};
    case ActivationForm::kFloat: break;
  }
  return {reinterpret_cast<const std::byte*>(x.data), x.cols * int64_t(sizeof(float))};
}

GemmJob CpuMatmul::job(const Matrix& weight, int64_t panel, int64_t n_panels, Tensor x, int32_t n_rows,
                       int worker) const {
  const Activations form = activations(x, weight.type);
  const int64_t stride = int64_t(panel_bytes(weight.type, weight.cols));
  GemmJob job{};
  job.panels = panel_at(weight, panel);
  job.panel_stride = stride;
  job.n_panels = int32_t(n_panels);
  job.units = panel_units(weight.type, weight.cols);
  job.x = form.data;
  job.x_stride = form.stride;
  job.n_rows = n_rows;
  job.partial = partial_.floats() + uint64_t(worker) * partial_floats(n_rows);
  return job;
}

// Pieces of a product among the threads: body(begin, end, next) as of ThreadPool::share_ahead. Many rows take
// long for a piece, so there nothing is taken ahead, and nothing needs to be fetched early: next is n_panels.
template <class Body>
void CpuMatmul::share_panels(int worker, int64_t n_panels, int64_t grain, int32_t n_rows, Body&& body) {
  if (n_rows < kResidentRows)
    pool_.share_ahead(1, worker, n_panels, grain, body);
  else
    pool_.share(1, worker, n_panels, grain, [&](int64_t begin, int64_t end) { body(begin, end, n_panels); });
}

void CpuMatmul::run(Tensor x, int32_t n_rows, std::span<const Projection> projections, bool accumulate) {
  const Matrix* weights[8];
  for (size_t i = 0; i < projections.size(); ++i) weights[i] = projections[i].weight;
  reserve(x, n_rows, {weights, projections.size()});
  int64_t total = 0;
  for (const Projection& projection : projections) total += panels_of(*projection.weight);
  const auto joint_panel = [&](int64_t panel) -> const std::byte* {
    for (const Projection& projection : projections) {
      if (panel < panels_of(*projection.weight)) return panel_at(*projection.weight, panel);
      panel -= panels_of(*projection.weight);
    }
    return nullptr;
  };

  pool_.run([&](int worker) {
    quantise(x, n_rows, worker);
    const int64_t grain = panel_grain(*weights[0], total, n_rows, pool_.size());
    share_panels(worker, total, grain, n_rows, [&](int64_t begin, int64_t end, int64_t next) {
      if (interrupted()) return;
      int64_t first = 0;  // of this projection in the joint list of panels
      for (const Projection& projection : projections) {
        const Matrix& weight = *projection.weight;
        const int64_t from = std::max(begin - first, int64_t(0));
        const int64_t to = std::min(end - first, panels_of(weight));
        first += panels_of(weight);
        if (from >= to) continue;
        GemmJob piece = job(weight, from, to - from, x, n_rows, worker);
        piece.next_panel = joint_panel(first < end ? first : next);
        piece.out = projection.out.data + from * kPanelRows;
        piece.out_stride = projection.out.cols;
        piece.out_cols = weight.rows - from * kPanelRows;
        piece.accumulate = accumulate;
        kernels_.gemm[int(weight.type)](piece);
      }
    });
  });
}

void CpuMatmul::run_swiglu(Tensor x, int32_t n_rows, const Matrix& w_gate, const Matrix& w_up, Tensor out) {
  const Matrix* weights[] = {&w_gate, &w_up};
  reserve(x, n_rows, weights);
  const int64_t grain = panel_grain(w_gate, panels_of(w_gate), n_rows, pool_.size());
  const int64_t width = grain * kPanelRows;
  const uint64_t scratch_floats = uint64_t(2 * width * n_rows);
  swiglu_scratch_.grow(scratch_floats * sizeof(float) * uint64_t(pool_.size()), "activations");

  pool_.run([&](int worker) {
    quantise(x, n_rows, worker);
    float* gate = swiglu_scratch_.floats() + uint64_t(worker) * scratch_floats;
    float* up = gate + width * n_rows;
    const int64_t n_panels = panels_of(w_gate);
    share_panels(worker, n_panels, grain, n_rows, [&](int64_t begin, int64_t end, int64_t next_begin) {
      if (interrupted()) return;
      const int64_t first = begin * kPanelRows;
      const int64_t n = std::min(end * kPanelRows, w_gate.rows) - first;
      const auto product = [&](const Matrix& weight, float* to, const std::byte* next) {
        GemmJob piece = job(weight, begin, end - begin, x, n_rows, worker);
        piece.out = to;
        piece.out_stride = width;
        piece.out_cols = width;
        piece.next_panel = next;
        kernels_.gemm[int(weight.type)](piece);
      };
      product(w_gate, gate, panel_at(w_up, begin));
      product(w_up, up, next_begin < n_panels ? panel_at(w_gate, next_begin) : nullptr);
      for (int32_t row = 0; row < n_rows; ++row)
        kernels_.swiglu(gate + row * width, up + row * width, n, out.data + row * out.cols + first);
    });
  });
}

}  // namespace maestrale
