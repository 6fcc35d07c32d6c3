// SPDX-License-Identifier: Apache-2.0
// Loads the small reference models for native tests and runs token sequences through them.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/cpu_backend.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/config.h"
#include "model/loader.h"
#include "model/model.h"

namespace maestrale::test {

struct TinyOptions {
  std::string isa = "";
  int threads = 1;
  KvType kv = KvType::kF16;
  int32_t max_rows = 512;
  int64_t max_pages = 64;
};

inline std::unique_ptr<Model> load_tiny(const std::string& name, const TinyOptions& options = {}) {
  const MappedFile file(std::string(test::kVectors) + "/" + name);
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  const ModelConfig config = config_from_gguf(header);
  auto model =
      load_gguf_model(file, header, config, make_cpu_backend({options.threads, options.isa, {}, {}}), {});
  model->prepare(options.max_rows, {config.n_layers, config.n_kv_heads, config.head_dim, options.kv,
                                    options.max_pages, config.sliding_window});
  return model;
}

// One sequence whose page p is page `first_id + p` of the pool; nothing is freed.
struct Timeline {
  explicit Timeline(PageId first_id = 0, int n = 32) {
    for (int i = 0; i < n; ++i) pages.push_back(first_id + i);
  }
  std::vector<PageId> pages;
  int64_t position = 0;
  const Adapter* adapter = nullptr;
};

inline bool never_cancelled(size_t) { return false; }

// Logits of every token, fed in chunks of `chunk`: (tokens.size(), vocab_size).
inline std::vector<float> run_logits(Model& model, std::span<const int32_t> tokens, int chunk,
                                     Timeline& timeline) {
  std::vector<float> all;
  for (size_t begin = 0; begin < tokens.size(); begin += size_t(chunk)) {
    const size_t n = std::min(size_t(chunk), tokens.size() - begin);
    Batch batch;
    batch.tokens.assign(tokens.begin() + long(begin), tokens.begin() + long(begin + n));
    batch.sequences.push_back({0, int32_t(n), timeline.position, 0, timeline.pages, timeline.adapter});
    std::vector<int32_t> rows(n);
    for (size_t i = 0; i < n; ++i) rows[i] = int32_t(i);
    const std::span<const float> logits = model.forward(batch, rows, never_cancelled);
    all.insert(all.end(), logits.begin(), logits.end());
    timeline.position += int64_t(n);
  }
  return all;
}

inline std::vector<float> run_logits(Model& model, std::span<const int32_t> tokens, int chunk = 512) {
  Timeline timeline;
  return run_logits(model, tokens, chunk, timeline);
}

// |a - b|^2 / |b|^2
inline double nmse(std::span<const float> a, std::span<const float> b) {
  double error = 0, power = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    power += double(b[i]) * b[i];
  }
  return a.size() == b.size() ? error / power : 1e30;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace maestrale::test
