// SPDX-License-Identifier: Apache-2.0
// Attention of every kernel table: against softmax in double precision, against the scalar bits, and at the
// limits of its integers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_backend.h"
#include "cpu/isa.h"
#include "cpu/kv_cache.h"

using namespace maestrale;

namespace {

constexpr int64_t kWindow = 100;

// Queries, keys and values of one head. Query i sits at position first_position + i.
struct Problem {
  int32_t head_dim;
  int64_t positions;
  std::vector<float> q, k, v;

  int64_t queries() const { return int64_t(q.size()) / head_dim; }
  int64_t last(int64_t query) const { return positions - queries() + query + 1; }
  int64_t first(int64_t query) const { return std::max(int64_t(0), last(query) - kWindow); }
};

// Normal values; one dimension of the keys is 15 times as large, as it happens behind rotary embeddings.
Problem normal_problem(int32_t head_dim, int64_t positions, int64_t queries, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Problem problem{head_dim, positions, {}, {}, {}};
  const auto fill = [&](std::vector<float>& x, int64_t rows) {
    x.resize(size_t(rows * head_dim));
    for (float& value : x) value = normal(random);
  };
  fill(problem.q, queries);
  fill(problem.k, positions);
  fill(problem.v, positions);
  for (int64_t p = 0; p < positions; ++p) problem.k[size_t(p * head_dim + 5)] *= 15.0f;
  return problem;
}

// What the kernels of one table make of it: (queries, head_dim), each divided by its sum of weights.
std::vector<float> attend(const Kernels& kernels, const Problem& problem, KvType type, int64_t from,
                          int64_t to) {
  const int32_t head_dim = problem.head_dim;
  const int64_t n_pages = (problem.positions + kPagePositions - 1) / kPagePositions;
  CpuKvCache cache(
      {.n_layers = 1, .n_kv_heads = 1, .head_dim = head_dim, .type = type, .max_pages = n_pages});
  std::vector<KvPageView> pages;
  for (int64_t p = 0; p < n_pages; ++p) pages.push_back(cache.view(PageId(p), 0, 0));
  const float nan = std::numeric_limits<float>::quiet_NaN();  // what no query sees counts for nothing
  for (const KvPageView& page : pages) {
    std::fill_n(const_cast<float*>(page.k_scale), kPagePositions, nan);
    std::fill_n(const_cast<float*>(page.v_scale), kPagePositions, nan);
  }
  for (int64_t p = 0; p < problem.positions; ++p)
    cache.append(kernels, PageId(p / kPagePositions), 0, 0, int32_t(p % kPagePositions),
                 problem.k.data() + p * head_dim, problem.v.data() + p * head_dim);

  const int64_t n = to - from;
  std::vector<int16_t> q(size_t(n * head_dim));
  std::vector<float> q_scale, out(size_t(n * head_dim));
  std::vector<int64_t> first, last;
  for (int64_t i = from; i < to; ++i) {
    const float scale =
        kernels.vector_to_i16(problem.q.data() + i * head_dim, head_dim, q.data() + (i - from) * head_dim);
    q_scale.push_back(scale * float(1.44269504088896341 / std::sqrt(double(head_dim))));
    first.push_back(problem.first(i));
    last.push_back(problem.last(i));
  }
  std::vector<AttentionState> state(size_t(n), {-std::numeric_limits<float>::infinity(), 0.0f});
  AttentionJob job{};
  job.head_dim = head_dim;
  job.n_queries = int32_t(n);
  job.q = q.data();
  job.q_scale = q_scale.data();
  job.first = first.data();
  job.last = last.data();
  job.pages = pages.data();
  job.n_pages = int32_t(n_pages);
  job.state = state.data();
  job.out = out.data();
  (type == KvType::kQ8_0 ? kernels.attend_i8 : kernels.attend_i16)(job);
  for (size_t i = 0; i < out.size(); ++i) out[i] /= state[i / size_t(head_dim)].sum;
  return out;
}
std::vector<float> attend(const Kernels& kernels, const Problem& problem, KvType type) {
  return attend(kernels, problem, type, 0, problem.queries());
}

// The same in double precision; `store` is what a cache keeps of a value.
template <class Store>
std::vector<double> exact(const Problem& problem, Store store) {
  std::vector<double> out(problem.q.size());
  const int32_t head_dim = problem.head_dim;
  for (int64_t i = 0; i < problem.queries(); ++i) {
    std::vector<double> weights;
    for (int64_t p = problem.first(i); p < problem.last(i); ++p) {
      double score = 0;
      for (int32_t d = 0; d < head_dim; ++d)
        score += double(problem.q[size_t(i * head_dim + d)]) * store(problem.k[size_t(p * head_dim + d)]);
      weights.push_back(score / std::sqrt(double(head_dim)));
    }
    const double max = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - max);
    for (int32_t d = 0; d < head_dim; ++d)
      for (size_t p = 0; p < weights.size(); ++p)
        out[size_t(i * head_dim + d)] +=
            weights[p] / sum *
            store(problem.v[size_t(problem.first(i) + int64_t(p)) * size_t(head_dim) + size_t(d)]);
  }
  return out;
}

// Root of the mean square of the difference.
template <class A, class B>
double distance(const std::vector<A>& a, const std::vector<B>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(double(a[i]) - double(b[i]), 2);
  return std::sqrt(squares / double(a.size()));
}

void check_bits(const std::vector<float>& got, const std::vector<float>& want, const std::string& what) {
  if (std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) != 0)
    test::fail(__FILE__, __LINE__, what + ": other bits");
}

}  // namespace

TEST(
    "attention: 16-bit integers are as near to the exact values as a cache in binary16, 8 bits near enough") {
  const Kernels& scalar = select_kernels("scalar");
  for (const int32_t head_dim : {32, 128, 256}) {
    const Problem problem = normal_problem(head_dim, 333, 13, uint32_t(head_dim));
    const auto want = exact(problem, [](float x) { return double(x); });
    const double half =
        distance(exact(problem, [](float x) { return double(f16_to_f32(f32_to_f16(x))); }), want);
    const double i16 = distance(attend(scalar, problem, KvType::kF16), want);
    const double i8 = distance(attend(scalar, problem, KvType::kQ8_0), want);
    CHECK(i16 <= half);
    CHECK(i8 <= 0.05);
  }
}

TEST("attention: every table gives the scalar bits for any head, number of queries and kind of cache") {
  for (const KvType type : {KvType::kF16, KvType::kQ8_0})
    for (const int32_t head_dim : {32, 80, 128, 256})
      for (const int64_t queries : {1, 4, 6, 7, 13}) {
        const Problem problem = normal_problem(head_dim, 200, queries, 7);
        const std::vector<float> want = attend(select_kernels("scalar"), problem, type);
        for (const std::string& name : available_isas())
          check_bits(attend(select_kernels(name), problem, type), want, name);
      }
}

TEST("attention: a query's bits do not depend on the queries beside it") {
  const Kernels& kernels = select_kernels(available_isas().front());
  const Problem problem = normal_problem(64, 300, 20, 9);
  const std::vector<float> together = attend(kernels, problem, KvType::kF16);
  for (int64_t i = 0; i < 20; ++i) {
    const std::vector<float> alone = attend(kernels, problem, KvType::kF16, i, i + 1);
    check_bits(alone, {together.begin() + 64 * i, together.begin() + 64 * (i + 1)},
               "query " + std::to_string(i));
  }
}

TEST("attention: the largest sums there can be do not overflow") {
  for (const std::string& name : available_isas()) {
    const Kernels& kernels = select_kernels(name);
    for (const float sign : {1.0f, -1.0f}) {
      // Equal scores have the largest sum of weights.
      Problem problem{256, 64, std::vector<float>(256, 90.0f), std::vector<float>(64 * 256, 90.0f * sign),
                      std::vector<float>(64 * 256, -5.0f)};
      for (const float value : attend(kernels, problem, KvType::kF16)) CHECK(std::fabs(value + 5.0f) < 1e-3f);
      // A key parallel to the query has the largest product, be it of many elements or of one. It alone is
      // seen if that is positive.
      problem.v[17 * 256] = 7.0f;
      for (const int64_t elements : {256, 1}) {
        std::fill(problem.q.begin() + elements, problem.q.end(), 0.0f);
        std::fill(problem.k.begin(), problem.k.end(), 0.0f);
        std::fill_n(problem.k.begin() + 17 * 256, elements, 90.0f * sign);
        const float got = attend(kernels, problem, KvType::kF16)[0], want = sign > 0 ? 7.0f : -5.0f;
        CHECK(std::fabs(got - want) < 1e-3f);
      }
    }
  }
}

TEST("attention: what is not finite poisons the queries that see it and no others") {
  for (const std::string& name : available_isas())
    for (const bool in_key : {true, false}) {
      Problem problem = normal_problem(32, 150, 50, 11);
      (in_key ? problem.k : problem.v)[120 * 32 + 3] = INFINITY;
      const std::vector<float> out = attend(select_kernels(name), problem, KvType::kF16);
      for (int64_t i = 0; i < 50; ++i) {
        const bool sees = problem.last(i) > 120;
        CHECK_EQ(int64_t(std::count_if(out.begin() + 32 * i, out.begin() + 32 * (i + 1),
                                       [](float x) { return std::isnan(x); })),
                 sees ? 32 : 0);
      }
    }
}
