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
      std::vector<RowRequest> requests(6);
      requests[2].whole = true;
      logits.copy(x, requests);
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
    const std::vector<RowRequest> requests{{}, {.draw = DrawRequest{}}};
    logits.copy(gpu.upload(std::vector<float>(10000, 1.5f), 5000), requests);
    gpu.device.synchronize();
    CHECK(logits.rows()[0].top.tokens.empty());
    CHECK_EQ(logits.rows()[1].token, -1);
  }
}

TEST("cuda: a step that draws has one or two launches more, and copies what is asked for") {
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
  const RowRequest whole{.whole = true}, top{}, token{.draw = DrawRequest{}};
  const auto step = [&](const std::vector<RowRequest>& requests, int launches, size_t bytes,
                        const std::string& copies) {
    for (int i = 0; i < 3; ++i) {  // the third one is a graph
      for (BatchSequence& sequence : batch.sequences) ++sequence.first_position;
      simulator<int()>("ptxsim_reset")();
      const auto got = model->forward(batch, rows, requests, never_cancelled);
      CHECK_EQ(got.size(), size_t(3));
      for (size_t r = 0; r < 3; ++r) {
        CHECK_EQ(got[r].all.empty(), !requests[r].whole);
        CHECK_EQ(got[r].top.tokens.empty(), requests[r].whole || requests[r].draw);
        CHECK_EQ(got[r].token >= 0, requests[r].draw.has_value());
      }
    }
    const bool draws = std::ranges::any_of(requests, [](const RowRequest& r) { return r.draw.has_value(); });
    const std::string send = "cuMemcpyHtoDAsync_v2\n";
    CHECK_EQ(std::string(simulator<const char*()>("ptxsim_trace")()),
             "cuCtxSetCurrent\n" + send + send + send + (draws ? send : "") + "cuGraphLaunch\n" + copies +
                 "cuStreamSynchronize\n");
    CHECK_EQ(reported("bytesToHost"), int64_t(bytes));
    CHECK_EQ(kernel_launches(), launches);
  };
  const std::string copy = "cuMemcpyDtoHAsync_v2\n";
  const int launches = 8 * config.n_layers + 4;
  step({whole, whole, whole}, launches, 3 * row, copy);
  step({top, top, top}, launches + 1, 3 * sizeof(TopRecord), copy);
  step({whole, top, whole}, launches + 1, sizeof(TopRecord) + 2 * row, copy + copy + copy);
  step({token, token, token}, launches + 2, 3 * sizeof(int32_t), copy);
  step({token, whole, whole}, launches + 2, sizeof(int32_t) + 2 * row, copy + copy);
  step({token, top, token}, launches + 2, 2 * sizeof(int32_t) + sizeof(TopRecord), copy + copy + copy);
}

// Asked for log-probabilities, a request takes whole rows.
TEST("cuda: requests draw on the device what the host draws from whole rows, alone and together") {
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
  add({.temperature = 0.9f, .top_k = 30, .typical_p = 0.8f, .frequency_penalty = 0.1f}, {.max_tokens = 4});
  add({.temperature = 1, .top_k = 300});   // more than are listed: the whole row is asked for after the step
  add({.temperature = 1, .top_p = 0.9f});  // needs whole rows, and says so before
  // More penalties than a device takes: it gets the highest logits.
  add({.temperature = 1, .top_k = 30, .repetition_penalty = 1.2f});
  requests.back().prompt = some_tokens(200);
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

TEST("cuda: of a draw on the device nothing but the token is copied to the host") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  Host host(on_cuda());
  uint64_t id = 0;
  const auto bytes = [&](const SamplingParams& sampling, size_t n_prompt = 9) {
    Request r = request(++id, some_tokens(n_prompt), 6);
    r.sampling = sampling;
    simulator<int()>("ptxsim_reset")();
    host.run(r);
    return reported("bytesToHost");
  };
  const int64_t token = sizeof(int32_t), top = sizeof(TopRecord), row = host.vocab_size() * 4;
  CHECK_EQ(bytes({.temperature = 0}), 6 * token);
  CHECK_EQ(bytes({.top_k = 40, .repetition_penalty = 1.1f, .last_n_tokens = 64}, 200), 6 * token);
  CHECK_EQ(bytes({.top_k = 300}), 6 * (token + row));
  CHECK_EQ(bytes({.top_k = 40, .repetition_penalty = 1.1f}, 200), 6 * top);
  CHECK_EQ(bytes({.top_p = 0.9f}), 6 * row);
}
