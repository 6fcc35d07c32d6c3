// SPDX-License-Identifier: Apache-2.0
// draw_token: from the highest logits of each row, as top_logits leaves them, the token that the sampler of
// native/sampling draws from them, bit for bit, or -1 where that cannot tell. Grid (rows), block kTopLogits:
// one candidate a thread. What is independent is done by all threads, what the order of additions decides by
// one: few candidates are left by then. Filters are those of native/sampling/filters.cc, in its order.
#pragma once

#include "base/draw_request.h"
#include "base/philox.h"
#include "cuda/top_record.h"
#include "top_logits.cuh"

namespace maestrale::device {

struct Candidate {
  int token;
  float score;
  double weight, value;  // value: whatever the step at hand computes for each
};

// The candidates of one row, the i-th of them also in the registers of thread i. All functions are for all
// threads.
class Candidates {
 public:
  struct Shared {
    Candidate list[kTopLogits];
    bool kept[kTopLogits];
    double sum;
    int count;
  };

  __device__ Candidates(Shared& shared, Candidate own_candidate) : own(own_candidate), shared_(shared) {}

  Candidate own;

  __device__ int count() const { return count_; }
  __device__ bool is_one() const { return int(threadIdx.x) < count_; }
  __device__ const Candidate& at(int i) const { return shared_.list[i]; }

  // Shows `own` to the others.
  __device__ void publish() {
    if (is_one()) shared_.list[threadIdx.x] = own;
    __syncthreads();
  }

  // Of what was published keeps those whose thread says so, in the order of before(i): whether candidate i
  // comes before the thread's own.
  template <class Before>
  __device__ void keep(bool kept, Before before) {
    kept = kept && is_one();
    shared_.kept[threadIdx.x] = kept;
    __syncthreads();
    int rank = 0;
    if (kept)
      for (int i = 0; i < count_; ++i) rank += shared_.kept[i] && before(i);
    count_ = __syncthreads_count(kept);
    if (kept) shared_.list[rank] = own;
    __syncthreads();
    if (is_one()) own = shared_.list[threadIdx.x];
  }
  __device__ void keep(bool kept) {
    keep(kept, [](int i) { return i < int(threadIdx.x); });
  }
  __device__ void sort_by_id() {
    keep(true, [&](int i) { return at(i).token < own.token; });
  }
  __device__ void keep_first(int n) { count_ = n; }

  // The sum of a member over what was published, in its order.
  __device__ double sum(double Candidate::*member) {
    if (threadIdx.x == 0) {
      double sum = 0;
      for (int i = 0; i < count_; ++i) sum += at(i).*member;
      shared_.sum = sum;
    }
    __syncthreads();
    const double sum = shared_.sum;
    __syncthreads();
    return sum;
  }

  // How many of the first ones it takes to reach a weight of `target`.
  __device__ int prefix_of_weight(double target) {
    if (threadIdx.x == 0) {
      double sum = 0;
      int n = 0;
      while (n < count_ && (n == 0 || sum < target)) sum += at(n++).weight;
      shared_.count = n;
    }
    __syncthreads();
    const int n = shared_.count;
    __syncthreads();
    return n;
  }

 private:
  Shared& shared_;
  int count_ = kTopLogits;
};

// Those whose probability is zero as a binary32 go.
__device__ inline void weigh(Candidates& all, float highest) {
  all.own.weight = portable_exp(double(all.own.score) - double(highest));
  all.publish();
  const double sum = all.sum(&Candidate::weight);
  all.keep(float(all.own.weight / sum) != 0);
}

__device__ inline void filter_top_p(double p, Candidates& all) {
  if (p >= 1) return;
  const double target = product(p, all.sum(&Candidate::weight));
  all.keep(true, [&](int i) {
    const Candidate& other = all.at(i);
    return other.score != all.own.score ? other.score > all.own.score : other.token > all.own.token;
  });
  all.keep_first(all.prefix_of_weight(target));
}

// The weight of the likeliest, which is always there, is 1.
__device__ inline void filter_min_p(double p, Candidates& all) {
  if (p > 0) all.keep(!(all.own.weight < p));
}

__device__ inline void filter_typical(double p, Candidates& all) {
  if (p >= 1) return;
  const double sum = all.sum(&Candidate::weight), probability = all.own.weight / sum;
  const double surprise = all.is_one() ? -portable_log(probability) : 0;
  all.own.value = product(probability, surprise);
  all.publish();
  const double entropy = all.sum(&Candidate::value);
  all.own.value = fabs(surprise - entropy);
  all.publish();
  all.keep(true, [&](int i) {
    const Candidate& other = all.at(i);
    return other.value != all.own.value ? other.value < all.own.value : other.token < all.own.token;
  });
  const int n = all.prefix_of_weight(product(p, sum));
  const double edge = all.at(n - 1).value;
  all.keep(all.own.value <= edge);
}

}  // namespace maestrale::device

extern "C" __global__ void __launch_bounds__(maestrale::cuda::kTopLogits)
    draw_token(const maestrale::cuda::TopRecord* records, const maestrale::DrawRequest* requests,
               int* tokens) {
  using namespace maestrale;
  using namespace maestrale::device;
  __shared__ unsigned long long keys[kTopLogits];
  __shared__ Candidates::Shared shared;
  __shared__ ScoreChange changes[DrawRequest::kMostChanges];
  __shared__ float best_score, last_score;
  __shared__ int best_token;
  static_assert(DrawRequest::kMostChanges <= kTopLogits);
  const TopRecord& top = records[blockIdx.x];
  const DrawRequest& request = requests[blockIdx.x];
  const int thread = threadIdx.x;
  if (thread == 0) tokens[blockIdx.x] = -1;  // until it is known

  const bool listed = thread < top.count;
  const int token = listed ? top.tokens[thread] : -1;
  float score = listed ? top.logits[thread] : -INFINITY;
  if (thread < request.n_changes) changes[thread] = request.changes[thread];
  if (__syncthreads_count(!(score < INFINITY)) > 0) return;  // damaged
  for (int i = 0; i < request.n_changes; ++i) {
    const ScoreChange change = changes[i];
    if (change.token != token) continue;
    score = i < request.n_biases ? score + change.amount
                                 : draw_rules::penalised(score, request.repetition_penalty, change.amount);
  }

  // Ranked by score, of equals the lower token first.
  const unsigned long long key =
      score > -INFINITY ? (unsigned long long)logit_key(score) << 32 | ~(unsigned)token : 0;
  keys[thread] = key;
  const int n = __syncthreads_count(key != 0), k = request.top_k;
  if (n == 0) return;
  int rank = 0;
  for (int i = 0; i < kTopLogits; ++i) rank += keys[i] > key;
  if (key != 0 && rank == 0) {
    best_score = score;
    best_token = token;
  }
  if (key != 0 && rank == k - 1) last_score = score;
  __syncthreads();
  if (request.temperature == 0) {
    if (thread == 0 && top.rest < best_score) tokens[blockIdx.x] = best_token;
    return;
  }

  // As no score is raised, no other token's is above `outside`.
  const draw_rules::Scale scale{draw_rules::moves_highest(request.temperature) ? best_score : 0,
                                request.temperature};
  const float outside = scale(top.rest), highest = scale(best_score);
  float lowest = -INFINITY;
  if (!(fabsf(highest) < INFINITY)) return;
  if (k == 0) {
    if (!draw_rules::min_p_drops(request.min_p, outside, highest)) return;
  } else if (n < k) {
    if (top.rest != -INFINITY) return;
  } else {
    lowest = scale(last_score);
    if (!(outside < lowest)) return;
  }

  Candidates all(shared, {token, scale(score), 0, 0});
  all.publish();
  all.keep(key != 0 && all.own.score >= lowest, [&](int i) { return all.at(i).token < token; });
  weigh(all, highest);
  filter_top_p(request.top_p, all);
  filter_min_p(request.min_p, all);
  filter_typical(request.typical_p, all);
  all.sort_by_id();
  const double sum = all.sum(&Candidate::weight);
  if (thread == 0) {
    double rest = product(philox_uniform(request.seed, request.position, draw_rules::kTokenStream), sum);
    int chosen = 0;
    while (chosen + 1 < all.count() && rest >= all.at(chosen).weight) rest -= all.at(chosen++).weight;
    tokens[blockIdx.x] = all.at(chosen).token;
  }
}
