// SPDX-License-Identifier: Apache-2.0
// LoRA adapters on the simulated GPU: whole models with rows of several adapters, launches and graphs,
// memory, adapters that come and go.
#include <atomic>
#include <thread>

#include "adapter_builder.h"
#include "check.h"
#include "cuda_models.h"
#include "engine_host.h"
#include "expect_error.h"
#include "model/adapter_loader.h"
#include "reference.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::string vectors(const std::string& name) { return std::string(test::kVectors) + "/" + name; }

std::unique_ptr<const Adapter> load(const Model& model, const std::string& path, const std::string& base) {
  return load_adapter(read_adapter_file(path, model.config()), 1.0f, model,
                      [&] { return open_base_weights(vectors("models/" + base + ".gguf")); }, {});
}

std::vector<float> logits_with(Model& model, const Adapter* adapter, std::span<const int32_t> tokens,
                               int chunk = 128) {
  Timeline timeline;
  timeline.adapter = adapter;
  return run_logits(model, tokens, chunk, timeline);
}

// Five adapters of swa16: of q and v, of some layers, with DoRA, with an embedding and a head of its own, of
// the head.
struct Directories {
  PeftDirectory dora{"swa16-patterns"}, whole{"swa16-qv"}, head{"swa16-qv"};

  Directories() {
    dora.set("use_dora", "true");
    for (const TensorCopy& tensor : std::vector<TensorCopy>(dora.tensors))
      if (tensor.name.ends_with("lora_B.weight"))
        dora.tensors.push_back(
            float_tensor(tensor.name.substr(0, tensor.name.size() - 13) + "lora_magnitude_vector",
                         {tensor.shape[0]}, 2.0f));
    dora.write();
    whole.set("modules_to_save", R"(["embed_tokens", "lm_head"])");
    whole.tensors.push_back(float_tensor("base_model.model.model.embed_tokens.weight", {512, 256}, 1.0f));
    whole.tensors.push_back(float_tensor("base_model.model.lm_head.weight", {512, 256}));
    whole.write();
    head.set("target_modules", R"(["lm_head"])");
    head.tensors = {float_tensor("base_model.model.lm_head.lora_A.weight", {4, 256}),
                    float_tensor("base_model.model.lm_head.lora_B.weight", {512, 4}, 0.2f)};
    head.write();
  }
  std::vector<std::string> paths() const {
    return {vectors("adapters/swa16-qv"), vectors("adapters/swa16-patterns"), dora.path(), whole.path(),
            head.path()};
  }
};

struct Part {
  const Adapter* adapter;
  int32_t rows;
};

// Sequences of these adapters in one batch; says whether each has the logits that it has alone.
void check_batch(Model& model, std::span<const Part> parts) {
  Batch batch;
  std::vector<std::vector<float>> want;
  std::vector<Timeline> timelines;
  std::vector<int32_t> rows;
  for (const auto& [adapter, n] : parts) {
    const int32_t sequence = int32_t(want.size());
    const std::vector<int32_t> tokens = tokens_below(512, n, sequence);
    want.push_back(logits_with(model, adapter, tokens));
    timelines.emplace_back(8 + sequence, 1);
    batch.sequences.push_back({batch.n_rows(), n, 0, 0, timelines.back().pages, adapter});
    for (const int32_t token : tokens) {
      rows.push_back(batch.n_rows());
      batch.tokens.push_back(token);
    }
  }
  const std::span<const float> logits = model.forward(batch, rows, never_cancelled);
  for (size_t s = 0; s < want.size(); ++s) {
    const size_t first = size_t(batch.sequences[s].first_row) * 512;
    if (!same_bits(logits.subspan(first, want[s].size()), want[s]))
      fail(__FILE__, __LINE__, "sequence " + std::to_string(s) + " differs from what it is alone");
  }
}

void check_mixed(Model& model, const std::string& base, const Directories& directories) {
  std::vector<std::unique_ptr<const Adapter>> all;
  const auto cpu = load_tiny("models/" + base + ".gguf");
  const std::vector<int32_t> tokens = tokens_below(512, 21, 5);
  for (const std::string& path : directories.paths()) {
    all.push_back(load(model, path, base));
    const auto same = load(*cpu, path, base);
    check_nmse(path, logits_with(model, all.back().get(), tokens), logits_with(*cpu, same.get(), tokens),
               1e-5);
  }
  const Adapter *qv = all[0].get(), *patterns = all[1].get(), *dora = all[2].get(), *whole = all[3].get(),
                *head = all[4].get();
  check_batch(model,
              std::vector<Part>{
                  {nullptr, 3}, {qv, 11}, {patterns, 2}, {nullptr, 9}, {dora, 5}, {whole, 4}, {head, 3}});
  check_batch(model, std::vector<Part>{
                         {qv, 1}, {whole, 1}, {dora, 1}, {head, 1}, {nullptr, 1}});  // a step of decoding
}

// One step of decoding, a row for each adapter.
void decode(Model& model, std::span<const Adapter* const> adapters, int64_t position) {
  Batch batch;
  std::vector<int32_t> rows;
  std::vector<Timeline> timelines;
  for (size_t i = 0; i < adapters.size(); ++i) timelines.emplace_back(PageId(8 * i), 8);
  for (size_t i = 0; i < adapters.size(); ++i) {
    batch.sequences.push_back({int32_t(i), 1, position, 0, timelines[i].pages, adapters[i]});
    batch.tokens.push_back(int32_t(i));
    rows.push_back(int32_t(i));
  }
  model.forward(batch, rows, never_cancelled);
}

}  // namespace

TEST("cuda: rows of five adapters and of none have the bits that they have alone") {
  use_simulator("cc=80,seed=2,races=0");
  const Directories directories;
  {
    const auto model = load_cuda("swa16-bf16");
    check_mixed(*model, "swa16-bf16", directories);
  }
  check_nothing_leaks();
}

TEST("cuda: rows of five adapters and of none on a model that is partly on the CPU") {
  use_simulator("cc=86,seed=3,races=0,count=0");
  const Directories directories;
  const auto model = load_split("swa16-bf16", 2);
  check_mixed(*model, "swa16-bf16", directories);
}

TEST(
    "cuda: a decoding step with adapters is one graph, whichever they are, and without one it is as before") {
  use_simulator("cc=80,races=0,initcheck=0");
  const auto model = load_cuda("hd128-q6_k");
  const auto one = load(*model, vectors("adapters/hd128-all-rslora"), "hd128-q6_k"),
             two = load(*model, vectors("adapters/hd128-all-rslora"), "hd128-q6_k");
  const Adapter *const first[] = {nullptr, one.get(), two.get()},
                       *const second[] = {two.get(), two.get(), two.get()},
                       *const none[] = {nullptr, nullptr, nullptr};
  decode(*model, none, 5);
  simulator<int()>("ptxsim_reset")();
  decode(*model, none, 6);
  const int64_t plain = kernel_launches();
  simulator<int()>("ptxsim_reset")();
  decode(*model, first, 5);
  // All seven products of each of the two layers change: two launches for each of the four inputs; and RoPE
  // with the cache and the records of what is gated are no longer part of a product.
  CHECK_EQ(kernel_launches() - plain, 2 * 10);
  decode(*model, first, 6);
  decode(*model, first, 7);
  simulator<int()>("ptxsim_reset")();
  decode(*model, second, 8);
  CHECK_EQ(reported("cuGraphInstantiateWithFlags"), 0);
  CHECK_EQ(std::string(simulator<const char*()>("ptxsim_trace")()),
           "cuCtxSetCurrent\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\n"
           "cuMemcpyHtoDAsync_v2\ncuGraphLaunch\ncuMemcpyDtoHAsync_v2\ncuStreamSynchronize\n");
  simulator<int()>("ptxsim_reset")();
  decode(*model, none, 9);
  CHECK_EQ(std::string(simulator<const char*()>("ptxsim_trace")()),
           "cuCtxSetCurrent\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\ncuMemcpyHtoDAsync_v2\n"
           "cuGraphLaunch\ncuMemcpyDtoHAsync_v2\ncuStreamSynchronize\n");
}

TEST("cuda: adapters that are loaded hold no stream") {
  use_simulator("cc=80,races=0,count=0");
  const auto model = load_cuda("swa16-bf16");
  const int64_t streams = reported("streams");
  CHECK_EQ(streams, 1);  // of the steps
  std::vector<std::unique_ptr<const Adapter>> adapters;
  for (int i = 0; i < 5; ++i) adapters.push_back(load(*model, vectors("adapters/swa16-qv"), "swa16-bf16"));
  CHECK_EQ(reported("streams"), streams);
  const std::vector<int32_t> tokens = tokens_below(512, 4);
  const std::vector<float> want = logits_with(*model, adapters[0].get(), tokens);
  CHECK(same_bits(logits_with(*model, adapters[4].get(), tokens), want));
}

TEST("cuda: an adapter goes when the device no longer reads it, also after a step that was cut short") {
  use_simulator("cc=80,races=0,count=0");
  for (const int32_t rows : {1, 20}) {  // a step that is put down first, and one that is launched as it comes
    const auto model = load_cuda("swa16-bf16");
    auto adapter = load(*model, vectors("adapters/swa16-qv"), "swa16-bf16");
    const std::vector<int32_t> tokens = tokens_below(512, rows);
    const std::vector<float> want = logits_with(*model, nullptr, tokens);
    const Timeline timeline;
    const Batch batch{tokens, {{0, rows, 0, 0, timeline.pages, adapter.get()}}};
    int polls = 0;
    CHECK(model->forward(batch, std::vector<int32_t>{0}, [&](size_t) { return polls++ == 2; }).empty());
    adapter.reset();
    CHECK(same_bits(logits_with(*model, nullptr, tokens), want));
  }
  check_nothing_leaks();
}

TEST("cuda: a device that was lost with an adapter on it takes nobody with it") {
  use_simulator("cc=80,quiet,races=0,initcheck=0,count=0");
  const std::vector<int32_t> tokens = tokens_below(512, 4);
  for (const int launch : {3, 12}) {
    const auto model = load_cuda("swa16-bf16");
    auto adapter = load(*model, vectors("adapters/swa16-qv"), "swa16-bf16");
    use_simulator(("fail_launch=" + std::to_string(launch) + ":719").c_str());
    expect_error("lost", ErrorCode::kDevice, "CUDA_ERROR_LAUNCH_FAILED",
                 [&] { logits_with(*model, adapter.get(), tokens); });
    adapter.reset();
    expect_error("afterwards", ErrorCode::kDevice, "CUDA_ERROR_LAUNCH_FAILED",
                 [&] { load(*model, vectors("adapters/swa16-qv"), "swa16-bf16"); });
  }
}

TEST("cuda: an adapter for which there is no memory is an error, costs nothing, and leaves nothing behind") {
  use_simulator("cc=80,quiet,races=0,initcheck=0,count=0");
  {
    const auto model = load_cuda("hd128-q4_0");
    const std::vector<int32_t> tokens = tokens_below(512, 4, 1);
    const std::vector<float> want = logits_with(*model, nullptr, tokens);
    const uint64_t before = cuda_free_memory(model->backend());
    int failures = 0;
    for (int nth = 1; failures < 20; ++nth, ++failures) {
      use_simulator(("fail_alloc=" + std::to_string(nth)).c_str());
      try {
        load(*model, vectors("adapters/hd128-all-rslora"), "hd128-q4_0");
        break;
      } catch (const Error& error) {
        CHECK_EQ(int(error.code()), int(ErrorCode::kOutOfMemory));
        CHECK_EQ(cuda_free_memory(model->backend()), before);
      }
    }
    use_simulator("fail_alloc=0");
    CHECK(failures >= 3 && failures < 20);
    CHECK(same_bits(logits_with(*model, nullptr, tokens), want));
  }
  check_nothing_leaks();
}

// What goes through the device's stream is for one thread; another one's would come between the launches of a
// step that is being put down.
TEST("cuda: who unloads an adapter leaves it to the engine's thread to free it") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  OpenOptions options;
  options.path = "models/hd128-q4_0.gguf";
  options.device = "cuda";
  options.context_length = 512;
  options.max_sequences = 2;
  Host host(options);
  host.engine().load_adapter(vectors("adapters/hd128-all-rslora"), "a", 1.0f,
                             [] { return open_base_weights(vectors("models/hd128-q4_0.gguf")); });
  const std::vector<int32_t> tokens = some_tokens(8);
  host.engine().submit(request(1, tokens, 400));
  Request with_adapter = request(2, tokens, 400);
  with_adapter.adapter = "a";
  host.engine().submit(std::move(with_adapter));
  host.wait(2, [](const Host::Outcome& outcome) { return outcome.tokens.size() >= 3; });
  host.engine().cancel(2);
  simulator<int()>("ptxsim_reset")();
  auto* const my_calls = simulator<int()>("ptxsim_calls_of_thread");
  const int before = my_calls();
  host.engine().unload_adapter("a");
  CHECK_EQ(my_calls(), before);
  CHECK(reported("cuMemFree_v2") > 0);  // by now
}

TEST("cuda: adapters come and go while requests run, and after a request that was cancelled with one") {
  use_simulator("cc=80,seed=9,races=0,initcheck=0,count=0");
  {
    OpenOptions options;
    options.path = "models/hd128-q4_0.gguf";
    options.device = "cuda";
    options.context_length = 512;
    options.max_sequences = 3;
    options.max_batch_tokens = 32;
    Host host(options);
    const std::vector<int32_t> tokens = some_tokens(40);
    const auto load_as = [&](const std::string& name) {
      return host.engine().load_adapter(vectors("adapters/hd128-all-rslora"), name, 1.0f,
                                        [] { return open_base_weights(vectors("models/hd128-q4_0.gguf")); });
    };
    const auto with = [&](uint64_t id, const std::string& name, int64_t n = 4) {
      Request r = request(id, tokens, n);
      r.adapter = name;
      return r;
    };
    load_as("a");
    const std::vector<int32_t> base = host.run(request(1, tokens, 4)).tokens;
    const std::vector<int32_t> adapted = host.run(with(2, "a")).tokens;
    CHECK(base != adapted);
    std::atomic<bool> ends{false};
    std::jthread others([&] {
      for (uint64_t id = 1000; !ends; ++id) {
        host.engine().submit(request(id, tokens, 4));
        CHECK(host.wait(id).tokens == base);
      }
    });
    for (uint64_t id = 10; id < 14; ++id) {
      const std::string name = "n" + std::to_string(id);
      load_as(name);
      host.engine().submit(with(id, name));
      host.engine().submit(with(100 + id, name, 400));
      CHECK(host.wait(id).tokens == adapted);
      host.engine().cancel(100 + id);
      host.engine().unload_adapter(name);
    }
    ends = true;
    others.join();
    host.engine().unload_adapter("a");
    CHECK(host.engine().adapters().empty());
    host.check_idle();
  }
  check_nothing_leaks();
}
