// SPDX-License-Identifier: Apache-2.0
// Draws on the simulated GPU against those of the sampler, of the same highest logits and of all of them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "check.h"
#include "cuda/top_record.h"
#include "cuda_parts.h"
#include "sampling/sampler.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

template <class T>
T one_of(std::mt19937& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

// Options that a device may be asked to draw with, every filter alone and with others.
SamplingParams random_params(std::mt19937& random, int32_t vocab_size) {
  SamplingParams p;
  do {
    p = {};
    p.temperature =
        one_of(random, {0.0f, 1e-45f, 1e-38f, 1e-4f, 9.9e-4f, 1e-3f, 0.3f, 0.8f, 1.0f, 1.7f, 50.0f});
    p.top_k = one_of(random, {0, 1, 2, 5, 40, 40, 100, 255, 256, 257});
    if (random() % 2) p.top_p = one_of(random, {0.0f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f});
    if (random() % 2) p.min_p = one_of(random, {1e-30f, 1e-3f, 0.02f, 0.3f, 1.0f});
    if (random() % 2) p.typical_p = one_of(random, {1e-3f, 0.05f, 0.3f, 0.9f, 0.99f});
    if (random() % 2) p.repetition_penalty = one_of(random, {1.1f, 1.3f, 100.0f});
    if (random() % 4 == 0) p.frequency_penalty = one_of(random, {0.3f, 2.0f});
    if (random() % 4 == 0) p.presence_penalty = one_of(random, {0.5f, 5.0f});
  } while (!Sampler(p, vocab_size).draws_from_top());
  p.last_n_tokens = one_of(random, {-1, 0, 5, 64});
  if (random() % 4 == 0)
    for (int i = 0; i < 6; ++i)
      p.logit_bias.push_back(
          {int32_t(random() % uint32_t(vocab_size)), one_of(random, {-kInf, -1.5f, -0.0f, 0.0f, -3e38f})});
  p.seed = random() | uint64_t(random()) << 32;
  return p;
}

// Peaked, flat, with many equals, with few that are possible, of every magnitude.
std::vector<float> random_logits(std::mt19937& random, int32_t vocab_size) {
  std::vector<float> logits(size_t(vocab_size), 0.0f);
  const float width = one_of(random, {0.1f, 1.0f, 6.0f}), step = one_of(random, {0.0f, 0.0f, 0.25f, 2.0f}),
              factor = one_of(random, {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1e-39f, 1e36f});
  const uint32_t impossible = one_of(random, {0u, 0u, 0u, 2u, 97u});  // of a hundred
  for (float& logit : logits) {
    const float value = -width * std::log(1e-6f + float(random() >> 8) * 0x1p-24f) - width;
    logit = factor * (step > 0 ? std::round(value / step) * step : value);
    if (random() % 100 < impossible) logit = -kInf;
  }
  if (random() % 50 == 0) logits[random() % logits.size()] = one_of(random, {kInf, std::nanf(""), -3e38f});
  return logits;
}

// As top_logits leaves it, but in an order of its own.
TopRecord top_of(const std::vector<float>& row, std::mt19937& random) {
  std::vector<int32_t> tokens(row.size());
  for (size_t i = 0; i < row.size(); ++i) tokens[i] = int32_t(i);
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) {
    const float x = row[size_t(a)], y = row[size_t(b)];
    return std::isnan(x) ? !std::isnan(y) : x > y;
  });
  const size_t n = std::min(row.size(), size_t(kTopLogits));
  TopRecord record = {};
  record.count = int(n);
  record.rest = n < row.size() ? row[size_t(tokens[n])] : -kInf;
  std::shuffle(tokens.begin(), tokens.begin() + std::ptrdiff_t(n), random);
  for (size_t i = 0; i < n; ++i) {
    record.tokens[i] = tokens[i];
    record.logits[i] = row[size_t(tokens[i])];
  }
  return record;
}

struct Draw {
  SamplingParams params;
  std::vector<float> logits;
  std::vector<int32_t> history;
  TopRecord top;
  DrawRequest request;
};

Draw random_draw(std::mt19937& random) {
  const int32_t vocab_size = one_of(random, {1, 3, 100, 256, 257, 600, 600, 600});
  Draw draw{random_params(random, vocab_size), random_logits(random, vocab_size), {}, {}, {}};
  draw.top = top_of(draw.logits, random);
  // Half of it of what is likely.
  for (int i = int(random() % 80); i > 0; --i)
    draw.history.push_back(i % 2 ? int32_t(random() % uint32_t(vocab_size))
                                 : draw.top.tokens[random() % uint32_t(draw.top.count)]);
  draw.request = *Sampler(draw.params, vocab_size).draw_request(draw.history, random());
  return draw;
}

template <class T>
DeviceBuffer copy_of(const Gpu& gpu, const std::vector<T>& values) {
  DeviceBuffer buffer(gpu.device, values.size() * sizeof(T), "a test");
  MAESTRALE_CU(gpu.device, cuMemcpyHtoDAsync_v2, buffer.address(), values.data(), values.size() * sizeof(T),
               gpu.device.stream());
  gpu.device.synchronize();
  return buffer;
}

std::vector<int32_t> draw_on_gpu(Gpu& gpu, const std::vector<Draw>& draws) {
  std::vector<TopRecord> records;
  std::vector<DrawRequest> requests;
  for (const Draw& draw : draws) {
    records.push_back(draw.top);
    requests.push_back(draw.request);
  }
  const DeviceBuffer top = copy_of(gpu, records), asked = copy_of(gpu, requests),
                     tokens(gpu.device, draws.size() * sizeof(int32_t), "a test");
  gpu.kernels.draw_token({.x = int64_t(draws.size()), .block = kTopLogits}, top.address(), asked.address(),
                         tokens.address());
  return gpu.download<int32_t>(reinterpret_cast<const void*>(uintptr_t(tokens.address())), draws.size());
}

}  // namespace

TEST("cuda: a draw on the device is the sampler's, whatever the logits and the options are") {
  int decided = 0, undecided = 0;
  for (const char* device : {"cc=75,eager", "cc=86"}) {
    use_simulator(device);
    Gpu gpu;
    std::mt19937 random(7);
    for (int round = 0; round < 12; ++round) {
      std::vector<Draw> draws;
      for (int i = 0; i < 128; ++i) draws.push_back(random_draw(random));
      const std::vector<int32_t> got = draw_on_gpu(gpu, draws);
      for (size_t i = 0; i < draws.size(); ++i) {
        const Draw& d = draws[i];
        Sampler sampler(d.params, int32_t(d.logits.size()));
        const size_t n = size_t(d.top.count);
        const TopLogits top{{d.top.tokens, n}, {d.top.logits, n}, d.top.rest};
        const auto want = sampler.sample(top, d.history, d.request.position);
        CHECK_EQ(got[i], want ? want->token : -1);
        ++(want ? decided : undecided);
        if (want) CHECK_EQ(got[i], sampler.sample(d.logits, d.history, d.request.position).token);
      }
    }
  }
  CHECK(decided > 1500);
  CHECK(undecided > 300);
}
