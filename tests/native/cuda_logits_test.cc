// SPDX-License-Identifier: Apache-2.0
// The end of a step on the simulated GPU: the highest logits of a row instead of all of them, and the tokens
// that are drawn from them.
#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "cuda/cuda_backend.h"
#include "cuda/logits.h"
#include "cuda_parts.h"
#include "engine_host.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Highest first, of equals the lower token; NaN above all.
std::vector<int32_t> ranked(std::span<const float> row) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < row.size(); ++i) tokens.push_back(int32_t(i));
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) {
    const float x = row[size_t(a)], y = row[size_t(b)];
    return std::isnan(x) ? !std::isnan(y) : x > y;
  });
  return tokens;
}

void check_top(const TopLogits& top, std::span<const float> row) {
  const std::vector<int32_t> want = ranked(row);
  const size_t n = std::min(row.size(), size_t(kTopLogits));
  CHECK_EQ(top.tokens.size(), n);
  for (size_t i = 0; i < n; ++i) {
    CHECK_EQ(top.tokens[i], want[i]);
    const float logit = row[size_t(want[i])];
    CHECK(std::isnan(logit) ? std::isnan(top.logits[i]) : top.logits[i] == logit);
  }
  if (n == row.size()) {
    CHECK(top.rest == -kInf);
  } else {
    CHECK(top.rest >= row[size_t(want[n])]);
    CHECK(top.rest <= top.logits[n - 1]);
  }
}

OpenOptions on_cuda() {
  OpenOptions options;
  options.path = "models/hd128-q4_k_m.gguf";
  options.device = "cuda";
  options.gpu_layers = 9;
  options.context_length = 512;
  return options;
}

}  // namespace

TEST("cuda: the highest logits of a row are found whatever the row is") {
  for (const char* device : {"cc=75,eager", "cc=86"}) {
    use_simulator(device);
    Gpu gpu;
    Logits logits(gpu.device, gpu.kernels);
    std::mt19937 random(3);
    for (const int64_t cols : {1, 100, 256, 257, 1024, 5000}) {
      std::vector<std::vector<float>> rows(6, random_floats(size_t(cols), random));
      for (float& x : rows[1]) x = std::round(x * 8) / 8;  // many equals
      std::sort(rows[2].begin(), rows[2].end());
      std::sort(rows[3].begin(), rows[3].end(), std::greater<>());
      for (size_t i = 0; i < rows[4].size(); i += 3) rows[4][i] = i % 2 == 0 ? -kInf : -0.0f;
      rows[5].back() = kInf;
      rows[5][rows[5].size() / 2] = -std::nanf("");
      std::vector<float> all;
      for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
      logits.prepare(6);
      const Tensor x = gpu.upload(all, cols);
      logits.copy(x, {false, false, true, false, false, false});
      gpu.device.synchronize();
      const std::vector<LogitRow> got = logits.rows();
      for (size_t r = 0; r < rows.size(); ++r) {
        if (r == 2)
          CHECK(same_bits(got[r].all, rows[r]));
        else
          check_top(got[r].top, rows[r]);
        CHECK(same_bits(logits.row(x, int64_t(r)), rows[r]));
      }
    }
    // More equals than can be listed: nothing is claimed.
    logits.copy(gpu.upload(std::vector<float>(5000, 1.5f), 5000), {false});
    gpu.device.synchronize();
    CHECK(logits.rows()[0].top.tokens.empty());
  }
}

TEST("cuda: a step that draws has one launch more, the same calls, and copies what is asked for") {
  use_simulator("cc=80,races=0,initcheck=0");  // it reads keys that nobody wrote
  const MappedFile file(std::string(test::kVectors) + "/models/hd128-q6_k.gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  const auto model = load_gguf_model(file, header, config, make_cuda_backend(0), {});
  model->prepare(16, {config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 32, 0});
  Batch batch;
  const std::vector<PageId> pages[] = {{0, 1}, {2, 3}, {4, 5}};
  for (int32_t i = 0; i < 3; ++i) {
    batch.tokens.push_back(40 + i);
    batch.sequences.push_back({i, 1, 0, 0, pages[i]});
  }
  const std::vector<int32_t> rows{0, 1, 2};
  const uint64_t row = uint64_t(config.vocab_size) * sizeof(float);
  const auto step = [&](const std::vector<bool>& whole, int launches, size_t bytes,
                        const std::string& copies) {
    for (int i = 0; i < 3; ++i) {  // the third one is a graph
      for (BatchSequence& sequence : batch.sequences) ++sequence.first_position;
      simulator<int()>("ptxsim_reset")();
      const auto got = model->forward(batch, rows, whole, never_cancelled);
      CHECK_EQ(got.size(), size_t(3));
      for (size_t r = 0; r < 3; ++r) CHECK_EQ(got[r].all.empty(), !whole[r]);
    }
    CHECK_EQ(std::string(simulator<const char*()>("ptxsim_trace")()),
             "cuCtxSetCurrent\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\n"
             "cuGraphLaunch\n" +
                 copies + "cuStreamSynchronize\n");
    CHECK_EQ(reported("bytesToHost"), int64_t(bytes));
    CHECK_EQ(kernel_launches(), launches);
  };
  const std::string copy = "cuMemcpyDtoHAsync_v2\n";
  const int launches = 8 * config.n_layers + 4;
  step({true, true, true}, launches, 3 * row, copy);
  step({false, false, false}, launches + 1, 3 * sizeof(TopRecord), copy);
  step({true, false, true}, launches + 1, 3 * sizeof(TopRecord) + 2 * row, copy + copy + copy);
  step({false, true, true}, launches + 1, 3 * sizeof(TopRecord) + 2 * row, copy + copy);
}

// Asked for log-probabilities, a request takes whole rows.
TEST("cuda: requests draw from the highest logits what they draw from all, alone and together") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  Host host(on_cuda());
  std::vector<Request> requests;
  const auto add = [&](const SamplingParams& sampling, Speculation speculation = {}) {
    Request r = request(uint64_t(requests.size()) + 1, some_tokens(9, int32_t(requests.size())), 6);
    r.sampling = sampling;
    r.sampling.seed = 11;
    r.speculation = speculation;
    requests.push_back(r);
  };
  add({.temperature = 0});
  add({.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1.1f, .last_n_tokens = 64});
  add({.temperature = 1.2f, .min_p = 0.02f});
  add({.temperature = 1, .top_k = 300});   // more than come: the whole row is asked for after the step
  add({.temperature = 1, .top_p = 0.9f});  // needs whole rows, and says so before
  add({.temperature = 0, .repetition_penalty = 1.3f}, {.max_tokens = 4});
  add({.temperature = 0.9f, .top_k = 20, .logprobs = 3});
  // Guesses that often come true, each of whose rows has to be asked for.
  SamplingParams few{.temperature = 1, .top_k = 300};
  for (int32_t token = 3; token < host.vocab_size(); ++token) few.logit_bias.push_back({token, -kInf});
  add(few, {.max_tokens = 4});
  requests.back().prompt = std::vector<int32_t>{0, 1, 2, 0, 1, 2, 0, 1, 2};
  requests.back().max_new_tokens = 30;
  std::vector<std::vector<int32_t>> want;
  for (Request r : requests) {
    r.id += 100;
    r.sampling.logprobs = 1;
    want.push_back(host.run(r).tokens);
  }
  const auto check = [&] {
    for (size_t i = 0; i < requests.size(); ++i) CHECK(host.wait(requests[i].id).tokens == want[i]);
  };
  for (const Request& r : requests) host.run(r);
  check();
  for (Request& r : requests) host.engine().submit((r.id += 200, r));
  check();
  host.check_idle();
}

TEST("cuda: a request that draws from the highest logits copies nothing else to the host") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  Host host(on_cuda());
  uint64_t id = 0;
  const auto bytes = [&](const SamplingParams& sampling) {
    Request r = request(++id, some_tokens(9), 6);
    r.sampling = sampling;
    simulator<int()>("ptxsim_reset")();
    host.run(r);
    return reported("bytesToHost");
  };
  const int64_t top = sizeof(TopRecord), row = host.vocab_size() * 4;
  CHECK_EQ(bytes({.temperature = 0}), 6 * top);
  CHECK_EQ(bytes({.top_k = 40, .repetition_penalty = 1.1f, .last_n_tokens = 64}), 6 * top);
  CHECK_EQ(bytes({.top_k = 300}), 6 * (top + row));
  CHECK_EQ(bytes({.top_p = 0.9f}), 6 * row);
}
