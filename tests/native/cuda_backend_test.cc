// SPDX-License-Identifier: Apache-2.0
// The CUDA back end on the simulated GPU, which executes the PTX that ships and checks every access.
#include "cuda/cuda_backend.h"

#include "check.h"
#include "cuda_models.h"
#include "expect_error.h"
#include "reference.h"
#include "simulated_gpu.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

void check_reference(const std::string& name, int chunk) {
  CHECK(check_prompts(*load_cuda(name + "-bf16"), name, chunk) >= 8);
  check_nothing_leaks();
}

bool is_k_quant(const std::string& type) { return type.find("_K") != type.npos; }

// One prompt in each storage type that `wanted` picks; says how many types there were.
template <class Wanted>
int check_types(Wanted wanted) {
  use_simulator("cc=80,races=0");
  std::string done;
  int types = 0;
  for (const StorageCase& c : storage_cases()) {
    if (c.type == done || !wanted(c.type)) continue;
    done = c.type;
    const bool floating = c.type == "F16" || c.type == "BF16";
    check_nmse(c.key, run_logits(*load_cuda(c.file), c.tokens), c.logits, floating ? 1e-5 : 2e-3);
    ++types;
  }
  return types;
}

}  // namespace

TEST("cuda: logits at, below and beyond the window match the reference, sm_80") {
  use_simulator("cc=86");
  check_reference("swa16", 128);
}

TEST("cuda: logits with full attention match the reference, sm_75 and work done at once") {
  use_simulator("cc=75,eager");
  check_reference("full", 50);
}

TEST("cuda: types of 256 weights match the float pass over their dequantised weights") {
  CHECK_EQ(check_types([](const std::string& type) { return is_k_quant(type); }), 6);
}

TEST("cuda: types of 32 weights match the float pass over their dequantised weights") {
  CHECK_EQ(check_types([](const std::string& type) { return type[0] == 'Q' && !is_k_quant(type); }), 5);
}

TEST("cuda: floating and nonlinear types match the float pass over their dequantised weights") {
  CHECK_EQ(check_types([](const std::string& type) { return type[0] != 'Q'; }), 4);
}

TEST("cuda: a cache in q8_0 loses what it loses on the CPU, and one in bf16 what its rounding does") {
  use_simulator("cc=80,races=0");
  const auto expected = read_vectors("hd128.vectors.safetensors");
  const std::vector<int32_t> tokens = expected.at("len131.tokens").as<int32_t>();
  const std::vector<float> want = expected.at("len131.logits").as<float>();
  const auto loss = [&](Model& model) { return nmse(run_logits(model, tokens, 100), want); };
  const auto on_gpu = [&](KvType kv) { return loss(*load_cuda("hd128-bf16", {.kv = kv})); };
  CHECK(on_gpu(KvType::kQ8_0) < 1.5 * loss(*load_tiny("models/hd128-bf16.gguf", {.kv = KvType::kQ8_0})));
  // The CPU has no such cache. Eight significant bits cost 1.2e-5 of the power of these logits.
  const double bf16 = on_gpu(KvType::kBF16);
  CHECK(bf16 > 1e-6);
  CHECK(bf16 < 1.9e-5);
}

// Full attention, so that a sequence spans several chunks of the running softmax.
TEST("cuda: logits have the same bits for every cut of the prompt and beside batch mates") {
  use_simulator("cc=80,seed=5,races=0,initcheck=0,count=0");
  for (const KvType kv : {KvType::kF16, KvType::kQ8_0}) {
    const auto model = load_cuda("hd128-q4_k_m", {.kv = kv, .sliding_window = 0});
    const std::vector<int32_t> tokens = tokens_below(512, 330, 1);
    Timeline timeline;
    const std::vector<float> want = run_logits(*model, tokens, 128, timeline);
    for (const auto& [first, chunk] : {std::pair(290, 9), std::pair(250, 80), std::pair(326, 1)}) {
      timeline.position = first;
      const std::vector<float> again =
          run_logits(*model, std::span(tokens).subspan(size_t(first)), chunk, timeline);
      CHECK(same_bits(again, std::span(want).subspan(size_t(first) * 512)));
    }

    // As the middle one of three sequences in a batch, of which the first leaves before the second layer.
    const std::vector<PageId> mates[] = {{20, 21}, timeline.pages, {22, 23}};
    const int32_t rows[] = {1, 30, 11};
    Batch batch;
    for (int m = 0; m < 3; ++m) {
      const std::vector<int32_t> own = m == 1 ? std::vector<int32_t>(tokens.begin() + 300, tokens.end())
                                              : tokens_below(512, rows[m], m + 2);
      batch.sequences.push_back({batch.n_rows(), rows[m], m == 1 ? 300 : 0, 0, mates[m]});
      batch.tokens.insert(batch.tokens.end(), own.begin(), own.end());
    }
    std::vector<int32_t> outputs;
    for (int32_t i = 0; i < 30; ++i) outputs.push_back(batch.sequences[1].first_row + i);
    const std::span<const float> end = std::span(want).subspan(300 * 512);
    CHECK(same_bits(model->forward(batch, outputs, never_cancelled), end));
    int polls = 0;
    CHECK(same_bits(model->forward(batch, outputs, [&](size_t s) { return s == 0 && polls++ >= 2; }), end));
  }
}

TEST("cuda: a model on the CPU and the GPU gives the reference logits, however its prompt is cut") {
  use_simulator("cc=86,races=0");
  for (const int32_t on_gpu : {1, 2}) {
    const auto model = load_split("swa16-bf16", on_gpu);
    CHECK(check_prompts(*model, "swa16", 128) >= 8);
    const std::vector<int32_t> tokens = tokens_below(512, 40, 1);
    const std::vector<float> want = run_logits(*model, tokens, 40);
    CHECK(same_bits(run_logits(*model, tokens, 7), want));

    // Beside a sequence that leaves before a layer on the CPU or on the GPU.
    for (int gone = 1; gone <= 3; ++gone) {
      Batch batch;
      batch.tokens = tokens_below(512, 9, 2);
      batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
      const std::vector<PageId> first{8}, second{9};
      batch.sequences = {{0, 9, 0, 0, first}, {9, 40, 0, 0, second}};
      std::vector<int32_t> rows;
      for (int32_t i = 9; i < 49; ++i) rows.push_back(i);
      int polls = 0;
      CHECK(
          same_bits(model->forward(batch, rows, [&](size_t s) { return s == 0 && polls++ >= gone; }), want));
    }
  }
  check_nothing_leaks();
}

// Every (queries, page) pair of which some query sees some key costs 64 mma for the scores and 64 for the
// values of each warp that has queries, and no other pair is touched.
TEST("cuda: attention computes the pages that are seen and no others") {
  use_simulator("cc=80,races=0,initcheck=0");
  constexpr int kRows = 32, kLayers = 2, kKvHeads = 2, kGroup = 2;  // queries of a block; of the model hd128
  for (const int64_t window : {100, 0}) {
    const auto model = load_cuda("hd128-q8_0", {.sliding_window = window});
    simulator<int()>("ptxsim_reset")();
    run_logits(*model, tokens_below(512, 300, 1), 110);
    int64_t want = 0;
    for (int64_t chunk = 0; chunk < 300; chunk += 110)
      for (int64_t first = chunk; first < std::min<int64_t>(chunk + 110, 300); first += kRows) {
        const int64_t end = std::min({first + kRows, chunk + 110, int64_t(300)});
        const int64_t seen = window == 0 ? 0 : std::max<int64_t>(0, first - window + 1);
        want += ((end - 1) / 64 - seen / 64 + 1) * (((end - first) * kGroup + 15) / 16);
      }
    const auto mma = [](const std::string& kernel) { return counter(kernel, "mma"); };
    CHECK_EQ(mma("attention_f16_128_64") + mma("split_attention_f16_128_64"),
             want * 128 * kLayers * kKvHeads);
    CHECK_EQ(mma("attention_f16_128_16") + mma("split_attention_f16_128_16"), 0);
  }
}

// One step of a decoding sequence for each of `timelines`.
std::span<const float> decode(Model& model, std::span<Timeline> timelines, int32_t token) {
  Batch batch;
  std::vector<int32_t> rows;
  for (Timeline& timeline : timelines) {
    batch.sequences.push_back({batch.n_rows(), 1, timeline.position++, 0, timeline.pages});
    rows.push_back(batch.n_rows());
    batch.tokens.push_back(token + batch.n_rows());
  }
  return model.forward(batch, rows, never_cancelled);
}

TEST("cuda: a decoding step is one graph, which allocates nothing and waits for its result only") {
  use_simulator("cc=80,races=0");
  const auto model = load_cuda("hd128-q4_k_m", {.sliding_window = 0});
  const auto reference = load_cuda("hd128-q4_k_m", {.sliding_window = 0});
  Timeline timelines[] = {Timeline(0, 8), Timeline(8, 8), Timeline(16, 8)}, plain(0, 8);
  std::vector<int32_t> history;
  simulator<int()>("ptxsim_reset")();
  for (int step = 0; step < 6; ++step) {
    if (step >= 2) simulator<int()>("ptxsim_reset")();
    const std::span<const float> logits = decode(*model, std::span(timelines).first(2), 10 * step);
    if (step >= 2)
      CHECK_EQ(std::string(simulator<const char*()>("ptxsim_trace")()),
               "cuCtxSetCurrent\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\n"
               "cuGraphLaunch\ncuMemcpyDtoHAsync_v2\ncuStreamSynchronize\n");
    else
      CHECK_EQ(reported("cuGraphInstantiateWithFlags"), step);
    // The same tokens as one prompt, whose launches are made at once.
    const std::vector<float> got(logits.begin(), logits.begin() + 512);
    history.push_back(10 * step);
    plain.position = 0;
    const std::vector<float> want = run_logits(*reference, history, 100, plain);
    CHECK(same_bits(got, std::span(want).last(512)));
  }
  // Another number of sequences is another graph; the first one is found again.
  simulator<int()>("ptxsim_reset")();
  for (int step = 0; step < 3; ++step) decode(*model, timelines, step);
  CHECK_EQ(reported("cuGraphInstantiateWithFlags"), 1);
  decode(*model, std::span(timelines).first(2), 1);
  CHECK_EQ(reported("cuGraphInstantiateWithFlags"), 1);
  CHECK_EQ(reported("cuGraphLaunch"), 3);
}

TEST("cuda: a load of many shapes settles to graphs alone") {
  use_simulator("cc=80,races=0,initcheck=0");
  const auto model = load_cuda("hd128-q4_k_m", {.sliding_window = 0});
  std::vector<Timeline> timelines;
  for (PageId page = 0; page < 12; ++page) timelines.emplace_back(page, 1);
  constexpr int kShapes = 78;  // numbers of sequences and, of these, of sequences whose logits are wanted
  for (int round = 0; round < 3; ++round) {
    simulator<int()>("ptxsim_reset")();
    for (int32_t n = 12; n > 0; --n)  // the largest first, since buffers grow and lists name them
      for (int32_t outputs = n; outputs > 0; --outputs) {
        Batch batch;
        std::vector<int32_t> rows;
        for (int32_t i = 0; i < n; ++i) {
          batch.sequences.push_back({i, 1, 0, 0, timelines[size_t(i)].pages});
          batch.tokens.push_back(i);
          if (i < outputs) rows.push_back(i);
        }
        model->forward(batch, rows, never_cancelled);
      }
    CHECK_EQ(reported("cuGraphInstantiateWithFlags"), round == 1 ? kShapes : 0);
    CHECK_EQ(reported("cuGraphLaunch"), round == 0 ? 0 : kShapes);
  }
}

TEST("cuda: a failure is an error with the call, and the process goes on") {
  use_simulator("cc=80,quiet,fail_alloc=3");
  expect_error("allocation", ErrorCode::kOutOfMemory, "the GPU has no room for",
               [] { load_cuda("hd128-q4_0"); });
  use_simulator("fail_module=1:218");
  expect_error("module", ErrorCode::kDevice, "cuModuleLoadDataEx failed with CUDA_ERROR_INVALID_PTX",
               [] { load_cuda("hd128-q4_0"); });
  check_nothing_leaks();
  expect_error("ordinal", ErrorCode::kDevice, "'cuda:7' does not exist", [] { make_cuda_backend(7); });
}

TEST("cuda: a failed kernel costs its own model, not another one, not the next") {
  use_simulator("cc=80,quiet");
  const std::vector<int32_t> tokens = tokens_below(512, 4, 1);
  const auto other = load_cuda("hd128-q4_0");
  auto lost = load_cuda("hd128-q4_0");
  const std::vector<float> want = run_logits(*other, tokens);
  use_simulator("fail_launch=9:719");
  for (const char* when : {"failing", "afterwards"})
    expect_error(
        when, ErrorCode::kDevice,
        "failed with CUDA_ERROR_LAUNCH_FAILED; this model is lost with its context on the GPU, load it again",
        [&] { run_logits(*lost, tokens); });
  CHECK(same_bits(run_logits(*other, tokens), want));
  CHECK(same_bits(run_logits(*load_cuda("hd128-q4_0"), tokens), want));
  lost.reset();
  CHECK(same_bits(run_logits(*other, tokens), want));
}

TEST("cuda: memory that does not suffice is an error with the numbers, and nothing stays allocated") {
  use_simulator("cc=80,quiet,memory=1m");
  expect_error("weights", ErrorCode::kOutOfMemory, "MiB of weights; ", [] { load_cuda("hd128-q4_0"); });
  check_nothing_leaks();
  use_simulator("memory=8m");
  expect_error("cache", ErrorCode::kOutOfMemory, "MiB of KV cache; ", [] { load_cuda("hd128-q4_0"); });
  check_nothing_leaks();
  use_simulator("memory=8g");
}

// Whichever allocation fails, those before it are given back: every second one from `first` on.
static void check_failing_allocations(int first) {
  use_simulator("cc=80,quiet,memory=8g");
  for (int nth = first;; nth += 2) {
    use_simulator(("fail_alloc=" + std::to_string(nth)).c_str());
    try {
      load_cuda("hd128-q4_0");
      CHECK(nth > 20);
      break;
    } catch (const Error& error) {
      CHECK_EQ(int(error.code()), int(ErrorCode::kOutOfMemory));
      check_nothing_leaks();
    }
  }
  use_simulator("fail_alloc=0");
}

TEST("cuda: nothing stays allocated when the first, third, fifth ... allocation fails") {
  check_failing_allocations(1);
}

TEST("cuda: nothing stays allocated when the second, fourth, sixth ... allocation fails") {
  check_failing_allocations(2);
}

TEST("cuda: without a driver the reason is given") {
  setenv("MAESTRALE_CUDA_DRIVER", "/no/such/library.so", 1);
  expect_error("no library", ErrorCode::kDevice, "MAESTRALE_CUDA_DRIVER cannot be opened",
               [] { make_cuda_backend(0); });
  setenv("MAESTRALE_CUDA_DRIVER", "", 1);
  expect_error("switched off", ErrorCode::kDevice, "MAESTRALE_CUDA_DRIVER is empty",
               [] { make_cuda_backend(0); });
}
