// SPDX-License-Identifier: Apache-2.0
// One matrix product on one core for every storage type and for 1 to 64 activation rows: multiply-adds a
// second and weight bytes a second. 4096 x 4096 weights by default, which do not fit in the caches, as in a
// model.
//   maestrale_bench_matmul [--isa NAME] [--type NAME] [--rows N,N,...] [--cols N]      prints CSV
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "base/memory.h"
#include "cpu/isa.h"
#include "cpu/panel_layout.h"

using namespace maestrale;

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Shape {
  int64_t out_rows = 4096, cols = 4096;
};

// Best of several repetitions, seconds.
double time_product(const Kernels& kernels, QuantType type, Shape shape, int n_rows) {
  const int64_t panels = shape.out_rows / kPanelRows, stride = int64_t(panel_bytes(type, shape.cols));
  Buffer weights(uint64_t(panels * stride), "weights");
  std::mt19937 random(1);
  for (uint64_t i = 0; i + 4 <= weights.bytes(); i += 4) {
    const uint32_t bits =
        random() & 0x3fff3fff;  // halves and floats below 2, never NaN: denormals would slow things
    std::memcpy(weights.data() + i, &bits, 4);
  }
  const ActivationForm form = activation_form(type);
  const int64_t x_stride =
      form == ActivationForm::kQ256  ? shape.cols / 256 * int64_t(sizeof(Activation256)) + 64
      : form == ActivationForm::kQ64 ? shape.cols / 64 * int64_t(sizeof(Activation64)) + 64
                                     : shape.cols * int64_t(sizeof(float));
  Buffer x(uint64_t(x_stride * n_rows), "activations");
  std::vector<float> row(static_cast<size_t>(shape.cols));
  for (int r = 0; r < n_rows; ++r) {
    for (float& value : row) value = float(int(random() % 2001)) / 1000.0f - 1.0f;
    std::byte* to = x.data() + r * x_stride;
    if (form == ActivationForm::kQ256) kernels.quantize_q256(row.data(), shape.cols, to);
    if (form == ActivationForm::kQ64) kernels.quantize_q64(row.data(), shape.cols, to);
    if (form == ActivationForm::kFloat) std::memcpy(to, row.data(), row.size() * sizeof(float));
  }
  std::vector<float> out(size_t(shape.out_rows * n_rows));
  GemmJob job{};
  job.units = visit_panel(type, [&]<class P>() { return (shape.cols + P::kItems - 1) / P::kItems; });
  job.panel_stride = stride;
  job.x = x.data();
  job.x_stride = x_stride;
  job.n_rows = n_rows;
  job.out_stride = shape.out_rows;
  double best = 1e9, spent = 0;
  for (int repeat = 0; repeat < 3 || (spent < 0.1 && repeat < 200); ++repeat) {
    const double start = seconds();
    for (int64_t panel = 0; panel < panels; panel += 8) {  // pieces as the backend hands them out
      job.panels = weights.data() + panel * stride;
      job.n_panels = int32_t(std::min<int64_t>(8, panels - panel));
      job.out = out.data() + panel * kPanelRows;
      job.out_cols = job.n_panels * kPanelRows;
      kernels.gemm[int(type)](job);
    }
    const double elapsed = seconds() - start;
    spent += elapsed;
    best = std::min(best, elapsed);
  }
  return best;
}

std::vector<int> parse_list(const std::string& text) {
  std::vector<int> values;
  for (size_t at = 0; at < text.size();) {
    values.push_back(std::atoi(text.c_str() + at));
    const size_t comma = text.find(',', at);
    at = comma == std::string::npos ? text.size() : comma + 1;
  }
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  std::string isa, only;
  std::vector<int> row_counts{1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 512};
  Shape shape;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i], value = argv[i + 1];
    if (option == "--isa") isa = value;
    if (option == "--type") only = value;
    if (option == "--rows") row_counts = parse_list(value);
    if (option == "--cols") shape.cols = std::atoi(value.c_str());
  }
  const Kernels& kernels = select_kernels(isa);
  std::printf("isa,type,rows,microseconds,gmacs,weight_gbs\n");
  for (const QuantTraits& traits : kQuantTraits) {
    if (!only.empty() && only != traits.name) continue;
    for (const int n_rows : row_counts) {
      const double time = time_product(kernels, traits.type, shape, n_rows);
      const double macs = double(shape.out_rows) * double(shape.cols) * n_rows;
      const double bytes = double(shape.out_rows / kPanelRows) * double(panel_bytes(traits.type, shape.cols));
      std::printf("%s,%s,%d,%.1f,%.1f,%.2f\n", kernels.name, std::string(traits.name).c_str(), n_rows,
                  time * 1e6, macs / time / 1e9, bytes / time / 1e9);
      std::fflush(stdout);
    }
  }
  return 0;
}
