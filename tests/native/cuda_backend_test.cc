// SPDX-License-Identifier: Apache-2.0
// The CUDA back end on the simulated GPU, which executes the PTX that ships and checks every access.
#include "cuda/cuda_backend.h"

#include "check.h"
#include "expect_error.h"
#include "reference.h"
#include "simulated_gpu.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

std::unique_ptr<Model> load_cuda(const std::string& name, KvType kv = KvType::kF16) {
  const MappedFile file(std::string(MAESTRALE_VECTORS) + "/models/" + name + ".gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  auto model = load_gguf_model(file, header, config, make_cuda_backend(0), {});
  model->prepare(128, {config.n_layers, config.n_kv_heads, config.head_dim, kv, 64, config.sliding_window});
  return model;
}

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

TEST("cuda: logits have the same bits for every cut of the prompt and beside batch mates") {
  use_simulator("cc=80,seed=5");
  const auto model = load_cuda("hd128-q4_k_m", KvType::kBF16);
  const std::vector<int32_t> tokens = tokens_below(512, 70, 1);
  const std::vector<float> want = run_logits(*model, tokens, 128);
  CHECK(same_bits(run_logits(*model, tokens, 9), want));
  const std::vector<PageId> mates[] = {{8, 9}, {4, 5}, {6, 7}};
  Batch batch;
  for (int m = 0; m < 3; ++m) {
    const std::vector<int32_t> own = m == 1 ? tokens : tokens_below(512, 5 + 6 * m, m + 2);
    batch.sequences.push_back({batch.n_rows(), int32_t(own.size()), 0, 0, mates[m]});
    batch.tokens.insert(batch.tokens.end(), own.begin(), own.end());
  }
  std::vector<int32_t> rows;
  for (int32_t i = 0; i < 70; ++i) rows.push_back(batch.sequences[1].first_row + i);
  CHECK(same_bits(model->forward(batch, rows, never_cancelled), want));
  int polls = 0;  // the first sequence leaves before the third layer
  CHECK(same_bits(model->forward(batch, rows, [&](size_t s) { return s == 0 && polls++ >= 2; }), want));
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
  // Whichever allocation fails, those before it are given back.
  use_simulator("memory=8g");
  for (int nth = 1;; ++nth) {
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

TEST("cuda: without a driver the reason is given") {
  setenv("MAESTRALE_CUDA_DRIVER", "/no/such/library.so", 1);
  expect_error("no library", ErrorCode::kDevice, "MAESTRALE_CUDA_DRIVER cannot be opened",
               [] { make_cuda_backend(0); });
  setenv("MAESTRALE_CUDA_DRIVER", "", 1);
  expect_error("switched off", ErrorCode::kDevice, "MAESTRALE_CUDA_DRIVER is empty",
               [] { make_cuda_backend(0); });
}
