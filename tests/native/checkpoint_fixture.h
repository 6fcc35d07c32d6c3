// SPDX-License-Identifier: Apache-2.0
// Checkpoint directories of tests/vectors/hf, and safetensors files that a test makes of them.
#pragma once

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/cpu_backend.h"
#include "engine/model_source.h"
#include "io/text_file.h"
#include "model/hf_weights.h"
#include "model/loader.h"
#include "temp_dir.h"
#include "vectors.h"

namespace maestrale::test {

inline std::string checkpoint_directory(const std::string& name) {
  return std::string(test::kVectors) + "/hf/" + name;
}

// A copy of a checkpoint that computes its logits with the embedding.
inline void copy_tied(const std::string& name, const std::string& to) {
  std::filesystem::copy(checkpoint_directory(name), to);
  std::string config = *read_text(to, "config.json");
  const std::string untied = "\"tie_word_embeddings\": false";
  config.replace(config.find(untied), untied.size(), "\"tie_word_embeddings\": true");
  std::ofstream(to + "/config.json") << config;
}

// A model in any form.
inline std::unique_ptr<Model> load_source(const std::string& path) {
  const auto source = open_model_source(ModelPath(path));
  const ModelConfig& c = source->config();
  auto model =
      load_model(source->weights(), c,
                 make_cpu_backend({.threads = 1, .isa = "", .weights = {}, .weights_owner = {}}), {});
  model->prepare(512, {c.n_layers, c.n_kv_heads, c.head_dim, KvType::kF16, 64, c.sliding_window});
  return model;
}

inline std::unique_ptr<Model> load_hf(const std::string& path) {
  const HfConfig config = read_hf_config(path);
  const HfShards shards(path);
  auto model = load_model(HfWeights(shards, config), config.model, make_cpu_backend({1, "", {}, {}}), {});
  const ModelConfig& c = config.model;
  model->prepare(512, {c.n_layers, c.n_kv_heads, c.head_dim, KvType::kF16, 64, c.sliding_window});
  return model;
}

inline std::vector<std::byte> to_bytes(const std::string& text) {
  std::vector<std::byte> bytes(text.size());
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

struct TensorCopy {
  std::string name;
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;
  std::string dtype = "";  // "": that of the file

  float* floats() { return reinterpret_cast<float*>(bytes.data()); }
};
// A safetensors file of these tensors.
inline std::vector<std::byte> safetensors(const std::vector<TensorCopy>& tensors,
                                          const std::string& dtype = "BF16") {
  std::string header = "{";
  uint64_t offset = 0;
  std::string data;
  for (const TensorCopy& tensor : tensors) {
    std::string shape;
    for (const uint64_t side : tensor.shape) shape += (shape.empty() ? "" : ",") + std::to_string(side);
    header += (offset == 0 ? "\"" : ",\"") + tensor.name + "\":{\"dtype\":\"" +
              (tensor.dtype.empty() ? dtype : tensor.dtype) + "\",\"shape\":[" + shape +
              "],\"data_offsets\":[" + std::to_string(offset) + "," +
              std::to_string(offset + tensor.bytes.size()) + "]}";
    offset += tensor.bytes.size();
    data.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  header += "}";
  const uint64_t length = header.size();
  return to_bytes(std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
}

inline std::vector<TensorCopy> tensors_of(const std::string& model) {
  std::vector<TensorCopy> out;
  for (const auto& [name, tensor] : read_vectors("hf/" + model + "/model.safetensors"))
    out.push_back({name, tensor.shape, tensor.bytes});
  return out;
}

}  // namespace maestrale::test
