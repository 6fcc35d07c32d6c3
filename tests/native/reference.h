// SPDX-License-Identifier: Apache-2.0
// Holds a model to the logits of tests/vectors, however it was loaded and on whatever device it computes.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>
#include <vector>

#include "check.h"
#include "tiny_model.h"
#include "vectors.h"

namespace maestrale::test {

inline void check_nmse(const std::string& what, const std::vector<float>& got, const std::vector<float>& want,
                       double bound) {
  const double error = nmse(got, want);
  if (!(error <= bound)) fail(__FILE__, __LINE__, what + ": NMSE " + std::to_string(error));
}

// Every prompt of <name>.vectors (lengths 1, 2, 7 and around one, two and four windows) to an NMSE of 1e-5;
// says how many there were.
inline int check_prompts(Model& model, const std::string& name, int chunk = 512) {
  int prompts = 0;
  const auto expected = read_vectors(name + ".vectors.safetensors");
  for (const auto& [key, logits] : expected) {
    const size_t suffix = key.find(".logits");
    if (suffix == std::string::npos) continue;
    const std::vector<int32_t> tokens = expected.at(key.substr(0, suffix) + ".tokens").as<int32_t>();
    check_nmse(name + " " + key, run_logits(model, tokens, chunk), logits.as<float>(), 1e-5);
    ++prompts;
  }
  return prompts;
}

struct StorageCase {
  std::string key;   // of the logits
  std::string type;  // or mix, as in the key: "Q4_K_M"
  std::string file;  // name of the model below tests/vectors/models, without .gguf
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // of a float pass over the dequantised weights
};

// Prompts of hd128 in each storage type; those of one type follow each other.
inline std::vector<StorageCase> storage_cases() {
  std::vector<StorageCase> cases;
  const auto expected = read_vectors("hd128-gguf.vectors.safetensors");
  for (const auto& [key, logits] : expected) {
    const size_t dot = key.find(".len"), suffix = key.find(".logits");
    if (suffix == std::string::npos) continue;
    const std::string type = key.substr(0, dot);
    std::string file = "hd128-" + type;
    std::transform(file.begin(), file.end(), file.begin(), [](char c) { return char(std::tolower(c)); });
    cases.push_back({key, type, file,
                     expected.at(key.substr(dot + 1, suffix - dot - 1) + ".tokens").as<int32_t>(),
                     logits.as<float>()});
  }
  return cases;
}

inline std::vector<int32_t> tokens_below(int vocab, int n, int seed = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) tokens[size_t(i)] = (i * 131 + seed * 17 + 7) % vocab;
  return tokens;
}

}  // namespace maestrale::test
