// SPDX-License-Identifier: Apache-2.0
// The tensors of a Mistral model: what each is for, its shape, and its names in GGUF, in Hugging Face's
// and in Mistral's own checkpoints. Loading, quantising and writing all walk this one list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace maestrale {

enum class TensorRole {
  kTokenEmbedding,
  kAttentionNorm,
  kQ,
  kK,
  kV,
  kAttentionOutput,
  kFfnNorm,
  kGate,
  kUp,
  kDown,
  kFinalNorm,
  kOutput,
};

struct ModelTensor {
  TensorRole role;
  int32_t layer;       // 0 outside the layers
  std::string name;    // in GGUF
  int64_t rows, cols;  // output and input features; a norm has 1 row

  bool is_norm() const {
    return role == TensorRole::kAttentionNorm || role == TensorRole::kFfnNorm ||
           role == TensorRole::kFinalNorm;
  }
};

// All of them in the order of the forward pass. The output matrix is the last; models that compute their
// logits with the embedding have none.
std::vector<ModelTensor> model_tensors(const ModelConfig& config);

// The name of the same tensor in a Hugging Face checkpoint.
std::string hf_tensor_name(const ModelTensor& spec);

// The name of the same tensor in Mistral's own, consolidated checkpoints.
std::string mistral_tensor_name(const ModelTensor& spec);

}  // namespace maestrale
