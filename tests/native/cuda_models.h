// SPDX-License-Identifier: Apache-2.0
// The small reference models on the simulated GPU, or partly on it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cuda/cuda_backend.h"
#include "model/gguf_weights.h"
#include "simulated_gpu.h"
#include "tiny_model.h"

namespace maestrale::test {

struct CudaOptions {
  KvType kv = KvType::kF16;
  int64_t sliding_window = -1;  // -1: of the file
  int64_t max_pages = 64;
};

inline std::unique_ptr<Model> load_cuda(const std::string& name, const CudaOptions& options = {}) {
  const MappedFile file(std::string(test::kVectors) + "/models/" + name + ".gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  auto model = load_gguf_model(file, header, config, make_cuda_backend(0), {});
  model->prepare(128, {config.n_layers, config.n_kv_heads, config.head_dim, options.kv, options.max_pages,
                       options.sliding_window < 0 ? config.sliding_window : options.sliding_window});
  return model;
}

// The first layers on the CPU, the last `on_gpu` ones on the GPU.
inline std::unique_ptr<Model> load_split(const std::string& name, int32_t on_gpu) {
  const MappedFile file(std::string(test::kVectors) + "/models/" + name + ".gguf");
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  std::vector<Stage> stages;
  stages.push_back({make_cpu_backend({1, "", {}, {}}), 0, config.n_layers - on_gpu});
  stages.push_back({make_cuda_backend(0), config.n_layers - on_gpu, config.n_layers});
  auto model = load_model(GgufWeights(file, header, config), config, std::move(stages), {});
  model->prepare(
      128, {config.n_layers, config.n_kv_heads, config.head_dim, KvType::kF16, 64, config.sliding_window});
  return model;
}

}  // namespace maestrale::test
