// SPDX-License-Identifier: Apache-2.0
// Every kernel table against the scalar one, bit for bit, and the scalar one against plain arithmetic.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "check.h"
#include "cpu/cpu_backend.h"
#include "cpu/isa.h"
#include "cpu/pack.h"
#include "cpu/panel_layout.h"
#include "quant/dequantize.h"

using namespace maestrale;

namespace {

std::vector<std::string> simd_tables() {
  std::vector<std::string> names = available_isas();
  names.pop_back();  // "scalar", the reference
  return names;
}

std::vector<float> normal_values(size_t n, uint32_t seed, float sigma = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> values(n);
  for (float& value : values) value = normal(random);
  return values;
}

// Random blocks whose float scales are sane binary16 numbers and whose other bits are arbitrary.
std::vector<std::byte> random_rows(QuantType type, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(uint64_t(rows) * row_bytes(type, uint64_t(cols)));
  for (std::byte& byte : bytes) byte = std::byte(random());
  const auto put_half = [&](size_t at, float scale) {
    const float value = scale * (float(random() % 2001) / 1000.0f - 1.0f);
    const uint16_t half = f32_to_f16(value);
    std::memcpy(bytes.data() + at, &half, 2);
  };
  const QuantTraits& traits = quant_traits(type);
  for (size_t at = 0; at < bytes.size(); at += traits.bytes_per_block) {
    switch (type) {
      case QuantType::kF32: {
        const float value = 0.02f * (float(random() % 2001) / 1000.0f - 1.0f);
        std::memcpy(bytes.data() + at, &value, 4);
        break;
      }
      case QuantType::kF16: put_half(at, 0.02f); break;
      case QuantType::kBF16: {
        const uint16_t value = f32_to_bf16(0.02f * (float(random() % 2001) / 1000.0f - 1.0f));
        std::memcpy(bytes.data() + at, &value, 2);
        break;
      }
      case QuantType::kNF4:
      case QuantType::kFP4: {
        const float absmax = 0.01f * float(random() % 2001) / 1000.0f;
        std::memcpy(bytes.data() + at, &absmax, 4);
        break;
      }
      case QuantType::kQ2_K:
        put_half(at + 80, 0.01f);
        put_half(at + 82, 0.01f);
        break;
      case QuantType::kQ3_K: put_half(at + 108, 0.01f); break;
      case QuantType::kQ6_K: put_half(at + 208, 0.001f); break;
      default:
        put_half(at, 0.01f);
        if (type == QuantType::kQ4_1 || type == QuantType::kQ5_1 || type == QuantType::kQ4_K ||
            type == QuantType::kQ5_K)
          put_half(at + 2, 0.01f);
    }
  }
  return bytes;
}

// Zeroed bytes at a cache line border, as panels and activations are laid out.
struct AlignedBytes {
  explicit AlignedBytes(size_t bytes) : memory(bytes + 64) {}
  std::byte* data() { return memory.data() + (64 - uintptr_t(memory.data()) % 64) % 64; }
  std::vector<std::byte> memory;
};

struct PackedMatrix {
  PackedMatrix(QuantType t, int64_t n_rows, int64_t n_cols, const std::vector<std::byte>& bytes)
      : type(t),
        rows(n_rows),
        cols(n_cols),
        panels(int((rows + 15) / 16)),
        memory(panel_bytes(t, n_cols) * uint64_t(panels)) {
    const uint64_t stride = panel_bytes(type, cols), row = row_bytes(type, uint64_t(cols));
    for (int p = 0; p < panels; ++p)
      pack_panel(type, bytes.data() + uint64_t(p) * 16 * row, int(std::min<int64_t>(16, rows - 16 * p)), cols,
                 data() + uint64_t(p) * stride);
  }
  std::byte* data() { return memory.data(); }

  QuantType type;
  int64_t rows, cols;
  int panels;
  AlignedBytes memory;
};

AlignedBytes quantised(const Kernels& kernels, QuantType type, const std::vector<float>& x, int n_rows,
                       int64_t cols, int64_t& stride) {
  const ActivationForm form = activation_form(type);
  stride = form == ActivationForm::kQ256   ? cols / 256 * int64_t(sizeof(Activation256))
           : form == ActivationForm::kQ64  ? (cols + 63) / 64 * int64_t(sizeof(Activation64))
           : form == ActivationForm::kQ128 ? (cols + 127) / 128 * int64_t(sizeof(Activation128))
                                           : cols * int64_t(sizeof(float));
  AlignedBytes bytes(size_t(stride * n_rows));
  for (int row = 0; row < n_rows; ++row) {
    std::byte* out = bytes.data() + row * stride;
    const float* source = x.data() + row * cols;
    if (form == ActivationForm::kQ256) kernels.quantize_q256(source, cols, out);
    if (form == ActivationForm::kQ64) kernels.quantize_q64(source, cols, out);
    if (form == ActivationForm::kQ128) kernels.quantize_q128(source, cols, out);
    if (form == ActivationForm::kFloat) std::memcpy(out, source, size_t(stride));
  }
  return bytes;
}

// `partial`: room for sums of wide products that are cut along the input dimension, see GemmJob.
std::vector<float> product(const Kernels& kernels, PackedMatrix& w, const std::vector<float>& x, int n_rows,
                           float* partial = nullptr) {
  int64_t stride = 0;
  AlignedBytes activations = quantised(kernels, w.type, x, n_rows, w.cols, stride);
  std::vector<float> out(size_t(n_rows * w.rows), -1.0f);
  GemmJob job{};
  job.panels = w.data();
  job.panel_stride = int64_t(panel_bytes(w.type, w.cols));
  job.n_panels = w.panels;
  job.units = visit_panel(w.type, [&]<class P>() { return (w.cols + P::kItems - 1) / P::kItems; });
  job.x = activations.data();
  job.x_stride = stride;
  job.n_rows = n_rows;
  job.out = out.data();
  job.out_stride = w.rows;
  job.out_cols = w.rows;
  job.partial = partial;
  kernels.gemm[int(w.type)](job);
  return out;
}

void check_same(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  if (a.size() != b.size() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) != 0)
    test::fail(__FILE__, __LINE__, "bits differ: " + what);
}

}  // namespace

TEST("kernels: products agree with the dequantised weights in double precision") {
  const Kernels& scalar = select_kernels("scalar");
  for (const QuantTraits& traits : kQuantTraits) {
    const int64_t rows = 48, cols = 512;
    const int n_rows = 5;
    const std::vector<std::byte> bytes = random_rows(traits.type, rows, cols, 1);
    PackedMatrix w(traits.type, rows, cols, bytes);
    const std::vector<float> x = normal_values(size_t(n_rows * cols), 2);
    const std::vector<float> got = product(scalar, w, x, n_rows);
    std::vector<float> weight(size_t(rows * cols));
    for (int64_t r = 0; r < rows; ++r)
      dequantize_row(traits.type, bytes.data() + uint64_t(r) * row_bytes(traits.type, cols), cols,
                     weight.data() + r * cols);
    double error = 0, power = 0;
    for (int m = 0; m < n_rows; ++m)
      for (int64_t r = 0; r < rows; ++r) {
        double want = 0;
        for (int64_t k = 0; k < cols; ++k)
          want += double(weight[size_t(r * cols + k)]) * x[size_t(m * cols + k)];
        error += (got[size_t(m * rows + r)] - want) * (got[size_t(m * rows + r)] - want);
        power += want * want;
      }
    // 8-bit activations are the only noise of the quantised types, binary32 rounding of the others; 4-bit
    // tables have 14-bit activations and scales rounded to binary16.
    const ActivationForm form = activation_form(traits.type);
    const double bound = form == ActivationForm::kFloat ? 1e-11 : form == ActivationForm::kQ128 ? 1e-7 : 1e-4;
    if (!(error / power < bound))
      test::fail(__FILE__, __LINE__, std::string(traits.name) + ": NMSE " + std::to_string(error / power));
  }
}

TEST("kernels: every table multiplies to the scalar bits for every format, row count and odd width") {
  const Kernels& scalar = select_kernels("scalar");
  for (const QuantTraits& traits : kQuantTraits) {
    // 7 panels exercise the odd one; 100 rows leave the last panel padded; 3 blocks half fill a unit of two.
    for (const int64_t cols :
         {int64_t(traits.items_per_block == 256 ? 768 : 3 * std::max(32u, traits.items_per_block)),
          int64_t(256)}) {
      PackedMatrix w(traits.type, 100, cols, random_rows(traits.type, 100, cols, 3));
      for (const int n_rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 31}) {
        const std::vector<float> x = normal_values(size_t(n_rows * cols), uint32_t(n_rows));
        const std::vector<float> want = product(scalar, w, x, n_rows);
        for (const std::string& name : simd_tables())
          check_same(product(select_kernels(name), w, x, n_rows), want,
                     name + " " + std::string(traits.name) + " rows " + std::to_string(n_rows));
      }
    }
  }
}

TEST("kernels: a product that is cut along the input dimension keeps its bits") {
  const Kernels& scalar = select_kernels("scalar");
  for (const QuantType type : {QuantType::kQ4_K, QuantType::kQ6_K, QuantType::kQ8_0, QuantType::kNF4,
                               QuantType::kBF16, QuantType::kF32}) {
    const int64_t rows = 5 * kPanelRows, cols = 14336;
    PackedMatrix w(type, rows, cols, random_rows(type, rows, cols, 5));
    for (const int n_rows : {1, 13, kResidentRows + 3}) {
      if (n_rows < kResidentRows)  // in two pieces or more
        CHECK(2 * int64_t(panel_bytes(type, cols)) > kStreamedBytes);
      else
        CHECK(5 * int64_t(panel_bytes(type, cols)) > kResidentBytes);
      const std::vector<float> x = normal_values(size_t(n_rows * cols), 6);
      const std::vector<float> want = product(scalar, w, x, n_rows);
      std::vector<std::string> names = simd_tables();
      names.push_back("scalar");
      for (const std::string& name : names) {
        std::vector<float> partial(size_t(n_rows) * 8 * kPanelRows, NAN);
        check_same(product(select_kernels(name), w, x, n_rows, partial.data()), want,
                   name + " " + std::string(quant_traits(type).name) + " rows " + std::to_string(n_rows));
      }
    }
  }
}

TEST("kernels: BF16 products in bf16 are near the exact ones, and the same for any number of rows") {
  const Kernels* kernels = nullptr;
  try {
    kernels = &select_kernels("avx512bf16");
  } catch (const Error&) {
    return;  // not on this machine
  }
  CHECK_EQ(std::string(kernels->name), "avx512bf16");
  const int64_t rows = 100, cols = 512;
  const int n_rows = 13;
  PackedMatrix w(QuantType::kBF16, rows, cols, random_rows(QuantType::kBF16, rows, cols, 7));
  const std::vector<float> x = normal_values(size_t(n_rows * cols), 8);
  const std::vector<float> got = product(*kernels, w, x, n_rows);
  const std::vector<float> exact = product(select_kernels("scalar"), w, x, n_rows);
  double error = 0, power = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += (double(got[i]) - exact[i]) * (double(got[i]) - exact[i]);
    power += double(exact[i]) * exact[i];
  }
  CHECK(error / power < 1e-5);  // 8 bits of an activation: a relative error of 2^-9 at most, 3e-6 in power
  CHECK(error > 0);             // it is another arithmetic indeed
  for (int m = 0; m < n_rows; ++m) {
    const std::vector<float> row(x.begin() + m * cols, x.begin() + (m + 1) * cols);
    const std::vector<float> alone = product(*kernels, w, row, 1);
    check_same(alone, {got.begin() + m * rows, got.begin() + (m + 1) * rows}, "row " + std::to_string(m));
  }
}

TEST("kernels: extreme codes and activations do not saturate") {
  const Kernels& scalar = select_kernels("scalar");
  for (const QuantTraits& traits : kQuantTraits) {
    if (activation_form(traits.type) == ActivationForm::kFloat) continue;
    for (const uint8_t fill : {uint8_t(0xff), uint8_t(0x00), uint8_t(0x80), uint8_t(0x7f)}) {
      std::vector<std::byte> bytes = random_rows(traits.type, 16, 256, 4);
      const std::vector<std::byte> scales = bytes;
      std::memset(bytes.data(), fill, bytes.size());
      const QuantTraits& t = traits;  // keep the float scales, fill the rest
      for (size_t at = 0; at < bytes.size(); at += t.bytes_per_block) {
        size_t field = 0, width = 2;
        if (t.type == QuantType::kQ2_K) field = 80, width = 4;
        if (t.type == QuantType::kQ3_K) field = 108;
        if (t.type == QuantType::kQ6_K) field = 208;
        if (t.type == QuantType::kQ4_1 || t.type == QuantType::kQ5_1 || t.type == QuantType::kQ4_K ||
            t.type == QuantType::kQ5_K || t.type == QuantType::kNF4 || t.type == QuantType::kFP4)
          width = 4;
        std::memcpy(bytes.data() + at + field, scales.data() + at + field, width);
      }
      PackedMatrix w(traits.type, 16, 256, bytes);
      for (const float sign : {1.0f, -1.0f}) {
        // The worst case the quantiser lets through: every code as large as the sums of a block may get.
        const std::vector<float> x(256, sign * 3.0f);
        const std::vector<float> want = product(scalar, w, x, 1);
        int64_t stride = 0;
        AlignedBytes form = quantised(scalar, traits.type, x, 1, 256, stride);
        double exact = 0;  // of the quantised activations, so that only the arithmetic is judged
        std::vector<float> row(256);
        dequantize_row(traits.type, bytes.data(), 256, row.data());
        for (int e = 0; e < 256; ++e) {
          if (activation_form(traits.type) == ActivationForm::kQ256) {
            const auto* a = reinterpret_cast<const Activation256*>(form.data());
            CHECK(std::abs(a->q[e]) >= 30);
            exact += double(row[size_t(e)]) * a->q[e] * a->d;
          } else if (activation_form(traits.type) == ActivationForm::kQ128) {
            const auto* a = reinterpret_cast<const Activation128*>(form.data()) + e / 128;
            CHECK_EQ(std::abs(a->q[e % 128]), kMaxQ16);
            exact += double(row[size_t(e)]) * a->q[e % 128] * a->d[e % 128 / 64];
          } else {
            const auto* a = reinterpret_cast<const Activation64*>(form.data()) + e / 64;
            CHECK(std::abs(a->q[e % 64]) == 127);
            exact += double(row[size_t(e)]) * a->q[e % 64] * a->d[e % 64 / 32];
          }
        }
        const double bound =
            activation_form(traits.type) == ActivationForm::kQ128 ? 0x1p-11 : 1e-5;  // of scales
        if (std::fabs(want[0] - exact) > bound * std::fabs(exact) + 1e-6)
          test::fail(__FILE__, __LINE__, std::string(traits.name) + ": wrong extreme sum");
        for (const std::string& name : simd_tables())
          check_same(product(select_kernels(name), w, x, 1), want, name + " " + std::string(traits.name));
      }
    }
  }
}

TEST("kernels: quantised activations keep their sums within 16-bit bounds and their values") {
  std::mt19937 random(11);
  for (int trial = 0; trial < 400; ++trial) {
    // From Gaussian to nearly constant, the latter in runs of one sign.
    std::vector<float> x = normal_values(256, uint32_t(trial), float(trial % 20) / 19.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] += (trial % 3 == 0 || (i / 32) % 2 == 0) ? 1.0f : -1.0f;
    for (const std::string& name : available_isas()) {
      Activation256 a;
      select_kernels(name).quantize_q256(x.data(), 256, reinterpret_cast<std::byte*>(&a));
      for (int b = 0; b < 16; ++b) {
        int sum = 0, absolute = 0;
        for (int e = 0; e < 16; ++e) {
          sum += a.q[16 * b + e];
          absolute += std::abs(a.q[16 * b + e]);
          CHECK(std::fabs(a.q[16 * b + e] * a.d - x[size_t(16 * b + e)]) <= 0.51f * a.d);
        }
        CHECK_EQ(int(a.sum16[b]), sum);
        CHECK_EQ(int(a.start16[b ^ 1]), 0x8000 - 32 * sum);
        CHECK(absolute <= kMaxAbsSum16);
      }
      for (int b = 0; b < 8; ++b) {
        int positive = 0, negative = 0;
        for (int e = 0; e < 32; ++e) (a.q[32 * b + e] > 0 ? positive : negative) += a.q[32 * b + e];
        CHECK(positive <= kMaxSum32 && -negative <= kMaxSum32);
        CHECK_EQ(int(a.sum32[b]), positive + negative);
        CHECK_EQ(a.start32[b], -128 * (positive + negative));
      }
    }
  }
}

TEST("kernels: quantised activations carry the poison of a value that is not finite") {
  for (const std::string& name : available_isas()) {
    const Kernels& kernels = select_kernels(name);
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> x = normal_values(256, 5);
      x[77] = bad;
      Activation256 a;
      kernels.quantize_q256(x.data(), 256, reinterpret_cast<std::byte*>(&a));
      CHECK(std::isnan(a.d));
      Activation64 b[4];
      kernels.quantize_q64(x.data(), 256, reinterpret_cast<std::byte*>(b));
      CHECK(std::isnan(b[1].d[0]));
      CHECK(!std::isnan(b[0].d[0]));
      Activation128 c[2];
      kernels.quantize_q128(x.data(), 256, reinterpret_cast<std::byte*>(c));
      CHECK(std::isnan(c[0].d[1]));
      CHECK(!std::isnan(c[0].d[0]) && !std::isnan(c[1].d[0]));
    }
  }
}

TEST("kernels: row operations give the scalar bits and the right values") {
  const Kernels& scalar = select_kernels("scalar");
  const int64_t n = 512;
  std::vector<float> x = normal_values(n, 6, 4.0f), y = normal_values(n, 7);
  x[0] = 0.0f, x[1] = -90.0f, x[2] = 90.0f, x[3] = 1e-30f, x[4] = -1e30f;
  const auto run = [&](const Kernels& k) {
    std::vector<float> all, out(n);
    k.rms_norm(x.data(), y.data(), 1e-5f, n, out.data());
    all.insert(all.end(), out.begin(), out.end());
    k.swiglu(x.data(), y.data(), n, out.data());
    all.insert(all.end(), out.begin(), out.end());
    std::vector<float> cos = normal_values(128, 8), sin = normal_values(128, 9);
    out.assign(x.begin(), x.begin() + 128);
    k.rope(out.data(), cos.data(), sin.data(), 128);
    all.insert(all.end(), out.begin(), out.end());
    return all;
  };
  const std::vector<float> want = run(scalar);
  for (const std::string& name : simd_tables()) check_same(run(select_kernels(name)), want, name);
  for (int64_t i = 0; i < n; ++i) {  // swiglu against the formula
    const double z = x[size_t(i)], exact = z / (1.0 + std::exp(-z)) * y[size_t(i)];
    CHECK(std::fabs(want[size_t(n + i)] - exact) <= 3e-6 * std::fabs(exact) + 1e-30);
  }
}

TEST(
    "kernels: rows of 16-bit integers use their range, stay within the norm that dot products allow, and "
    "carry poison") {
  const auto norm = [](const std::vector<int16_t>& q) {
    double squares = 0;
    for (int16_t value : q) squares += double(value) * value;
    return std::sqrt(squares);
  };
  std::vector<std::vector<float>> rows = {normal_values(256, 1), normal_values(128, 2, 1e-30f),
                                          std::vector<float>(256, 3.0f), std::vector<float>(64, 0.0f),
                                          std::vector<float>(64, 1e-44f)};
  rows.push_back(normal_values(128, 3));
  rows.back()[17] = -1e6f;  // an outlier
  for (const std::string& name : available_isas()) {
    const Kernels& k = select_kernels(name);
    for (const std::vector<float>& x : rows) {
      const int64_t n = int64_t(x.size());
      const float largest = std::fabs(*std::max_element(
          x.begin(), x.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
      std::vector<int16_t> value(x.size()), vector(x.size()), want(x.size());
      const float value_step = k.value_to_i16(x.data(), n, value.data());
      const float vector_step = k.vector_to_i16(x.data(), n, vector.data());
      CHECK(vector_step > 0.0f);  // a maximum of scores is found before it multiplies them
      for (size_t i = 0; i < x.size(); ++i) {
        const float tiny = largest < 1e-30f ? largest : 0.0f;  // the whole row becomes zero
        CHECK(std::fabs(value[i] * value_step - x[i]) <= 0.5001f * value_step + tiny);
        CHECK(std::fabs(vector[i] * vector_step - x[i]) <= 0.5001f * vector_step + tiny);
      }
      CHECK(norm(vector) < 46340.0);  // of which the square is 2^31
      if (largest >= 1e-30f) {
        CHECK_EQ(std::abs(*std::max_element(value.begin(), value.end(),
                                            [](int16_t a, int16_t b) { return std::abs(a) < std::abs(b); })),
                 16383);
        const bool full =
            std::count_if(vector.begin(), vector.end(), [](int16_t q) { return std::abs(q) == 32767; }) > 0;
        CHECK(full || norm(vector) > 45990.0);
      }
      select_kernels("scalar").vector_to_i16(x.data(), n, want.data());
      CHECK(vector == want);
    }
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> x = normal_values(64, 5);
      x[7] = bad;
      int16_t q[64];
      CHECK(std::isnan(k.value_to_i16(x.data(), 64, q)));
      CHECK(std::isnan(k.vector_to_i16(x.data(), 64, q)));
    }
  }
}

TEST("kernels: an unknown or impossible table is refused") {
#if defined(__aarch64__)
  const char* const kForeign = "avx2";
#else
  const char* const kForeign = "neon-i8mm";
#endif
  CHECK_THROWS(select_kernels("sse9"), ErrorCode::kInvalidArg);
  CHECK_THROWS(select_kernels(kForeign), ErrorCode::kDevice);
}
