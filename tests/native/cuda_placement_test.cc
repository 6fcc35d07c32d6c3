// SPDX-License-Identifier: Apache-2.0
// Models opened on simulated GPUs: some that are nearly too small, files of other forms.
#include <algorithm>
#include <string>

#include "check.h"
#include "cuda/cuda_backend.h"
#include "engine/packed_file.h"
#include "engine_host.h"
#include "simulated_gpu.h"
#include "temp_dir.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr uint64_t kKiB = 1024;
constexpr int64_t kContext = 2048;

OpenOptions on_cuda(const std::string& model, int32_t gpu_layers) {
  OpenOptions options;
  options.path = "models/" + model + ".gguf";
  options.device = "cuda";
  options.gpu_layers = gpu_layers;
  options.sliding_window = 0;  // for a cache that takes what it can get
  options.context_length = kContext;
  options.max_batch_tokens = 16;
  return options;
}

void set_memory(uint64_t bytes) { use_simulator(("memory=" + std::to_string(bytes)).c_str()); }

// Two sequences whose prompts fill whole batches, then decode together.
void use_all(Host& host) {
  host.engine().submit(request(1, some_tokens(30), 3));
  host.engine().submit(request(2, some_tokens(20, 1), 3));
  for (const uint64_t id : {1, 2}) CHECK_EQ(host.wait(id).tokens.size(), size_t(3));
  host.check_idle();
}

// The least memory, to 64 KiB, with which `loads` does not throw; what it says below that is kept.
template <class Loads>
uint64_t least_memory(std::vector<std::string>& messages, Loads loads) {
  uint64_t low = 0, high = 16 * kKiB * kKiB;
  while (high - low > 64 * kKiB) {
    const uint64_t middle = (low + high) / 2;
    set_memory(middle);
    try {
      loads();
      high = middle;
    } catch (const Error& error) {
      CHECK_EQ(int(error.code()), int(ErrorCode::kOutOfMemory));
      messages.push_back(error.what());
      low = middle;
    }
  }
  return high;
}

}  // namespace

TEST("cuda: steps take no more than was foreseen beside weights and pages") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  for (const std::string name : {"hd128-q4_0", "swa16-bf16"}) {
    const MappedFile file(std::string(test::kVectors) + "/models/" + name + ".gguf");
    const GgufFile header = GgufFile::parse(file.bytes(), file.size());
    const ModelConfig config = config_from_gguf(header);
    const auto model = load_gguf_model(file, header, config, make_cuda_backend(0), {});
    const KvConfig kv{config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 8, 0};
    const uint64_t before = cuda_free_memory(model->backend());
    const uint64_t foreseen = Model::workspace_bytes(config, model->backend(), true, 64, kv);
    model->prepare(64, kv);
    Timeline timeline(0, 8);
    timeline.position = 256;  // of the keys before, only the number counts
    run_logits(*model, some_tokens(66), 64, timeline);
    run_logits(*model, some_tokens(3), 1, timeline);
    const uint64_t taken = before - cuda_free_memory(model->backend()) -
                           model->backend().kv_page_bytes(kv) * uint64_t(kv.max_pages);
    CHECK(taken <= foreseen);
    CHECK(taken > foreseen / 10 * 7);
  }
}

TEST("cuda: a whole model on a card that it nearly fills leaves room for its activations") {
  use_simulator("cc=80,quiet,races=0,initcheck=0,count=0");
  std::vector<std::string> messages;
  const OpenOptions options = on_cuda("swa16-bf16", 3);
  const uint64_t least = least_memory(messages, [&] { Host{options}; });
  CHECK(!messages.empty());
  for (const std::string& message : messages)
    CHECK(message.find("activations") == message.npos && message.find("of batch") == message.npos);
  set_memory(least + 64 * kKiB);  // some pages more than the first
  Host host(options);
  CHECK_EQ(host.opened().gpu_layers, 3);
  use_all(host);
  set_memory(uint64_t{8} << 30);
}

TEST("cuda: 'auto' takes the layers that fit, and every such model runs") {
  use_simulator("cc=80,quiet,races=0,initcheck=0,count=0");
  const OpenOptions options = on_cuda("swa16-bf16", -1);
  std::vector<std::string> messages;
  const uint64_t least = least_memory(messages, [&] { Host{options}; });
  for (const std::string& message : messages)
    CHECK(message.starts_with("the GPU has ") && message.find("too little for one layer") != message.npos);
  std::vector<int32_t> layers;
  for (uint64_t memory = least; layers.empty() || layers.back() < 3; memory += 512 * kKiB) {
    set_memory(memory);
    Host host(options);
    layers.push_back(host.opened().gpu_layers);
    CHECK(host.engine().config().max_pages >= kContext / kPagePositions);
    use_all(host);
  }
  CHECK(std::is_sorted(layers.begin(), layers.end()));
  for (const int32_t n : {1, 2, 3}) CHECK(std::find(layers.begin(), layers.end(), n) != layers.end());
  set_memory(uint64_t{8} << 30);
}

TEST("cuda: a packed file gives the bits of the file it was made of, on the GPU and on both") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  for (const std::string name : {"hd128-q4_k_m", "swa16-bf16"}) {
    TempDir dir;
    pack_model(std::string(test::kVectors) + "/models/" + name + ".gguf", dir.path("packed"), {});
    for (const int32_t on_gpu : {1, 9}) {
      OpenOptions options = on_cuda(name, on_gpu);
      const auto run = [&] {
        Host host(options);
        Request r = request(1, some_tokens(20), 4);
        r.sampling.logprobs = 8;
        return host.run(r);
      };
      const auto want = run();
      options.path = dir.path("packed");
      const auto got = run();
      CHECK(got.tokens == want.tokens);
      CHECK(same_bits(got.logprobs, want.logprobs));
    }
  }
}
