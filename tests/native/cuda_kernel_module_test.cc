// SPDX-License-Identifier: Apache-2.0
// Which kernels a model has the driver translate, and what happens when it cannot.
#include <algorithm>
#include <set>

#include "check.h"
#include "cuda/cuda_backend.h"
#include "expect_error.h"
#include "simulated_gpu.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

int64_t loaded_modules() { return reported("cuModuleLoadDataEx"); }

struct Loaded {
  explicit Loaded(const std::string& name, KvType kv = KvType::kF16)
      : file(std::string(test::kVectors) + "/models/" + name + ".gguf"),
        header(GgufFile::parse(file.bytes(), file.size())) {
    const ModelConfig config = config_from_gguf(header);
    model = load_gguf_model(file, header, config, make_cuda_backend(0), {});
    model->prepare(128, {config.n_layers, config.n_kv_heads, config.head_dim, kv, 32, 0});
  }
  // Of matrices, and of the table that begins the model.
  int types() const {
    std::set<QuantType> types;
    for (const GgufTensor& tensor : header.tensors())
      if (tensor.name.find("norm") == std::string::npos && tensor.name != "token_embd.weight")
        types.insert(tensor.type);
    return int(types.size());
  }
  MappedFile file;
  GgufFile header;
  std::unique_ptr<Model> model;
};

}  // namespace

TEST("cuda: a model loads the kernels of its storage types and of its cache, before its first step") {
  use_simulator("cc=80,races=0,initcheck=0,count=0");
  for (const char* name : {"hd128-q4_k_m", "hd128-q8_0", "swa16-bf16"})
    for (const KvType kv : {KvType::kF16, KvType::kQ8_0}) {
      simulator<int()>("ptxsim_reset")();
      const Loaded loaded(name, kv);
      CHECK_EQ(loaded_modules(), 1 + loaded.types() + 1);
      std::vector<int32_t> tokens(100, 7);  // takes every kind of product but the one of a row
      run_logits(*loaded.model, tokens, 60);
      run_logits(*loaded.model, std::span(tokens).first(1));
      CHECK_EQ(loaded_modules(), 1 + loaded.types() + 1);
    }
  check_nothing_leaks();
}

TEST("cuda: whichever module the driver refuses, the reason is told and nothing stays behind") {
  use_simulator("cc=75,quiet,races=0,initcheck=0,count=0");
  const int modules = 2 + Loaded("hd128-q4_k_m").types();
  for (int nth = 1; nth <= modules; ++nth) {
    use_simulator(("fail_module=" + std::to_string(nth) + ":218").c_str());
    expect_error("module", ErrorCode::kDevice, "cuModuleLoadDataEx failed with CUDA_ERROR_INVALID_PTX",
                 [] { Loaded("hd128-q4_k_m"); });
    check_nothing_leaks();
  }
  use_simulator("fail_module=0:0");
  Loaded("hd128-q4_k_m");
}
