// SPDX-License-Identifier: Apache-2.0
#include "model/model_tensors.h"

namespace maestrale {

std::vector<ModelTensor> model_tensors(const ModelConfig& config) {
  using enum TensorRole;
  const int64_t dim = config.dim, hidden = config.hidden_dim, vocab = config.vocab_size;
  const int64_t q = int64_t{config.n_heads} * config.head_dim;
  const int64_t kv = int64_t{config.n_kv_heads} * config.head_dim;
  std::vector<ModelTensor> specs{{kTokenEmbedding, 0, "token_embd.weight", vocab, dim}};
  for (int32_t layer = 0; layer < config.n_layers; ++layer) {
    const auto add = [&](TensorRole role, const char* name, int64_t rows, int64_t cols) {
      specs.push_back({role, layer, "blk." + std::to_string(layer) + "." + name + ".weight", rows, cols});
    };
    add(kAttentionNorm, "attn_norm", 1, dim);
    add(kQ, "attn_q", q, dim);
    add(kK, "attn_k", kv, dim);
    add(kV, "attn_v", kv, dim);
    add(kAttentionOutput, "attn_output", dim, q);
    add(kFfnNorm, "ffn_norm", 1, dim);
    add(kGate, "ffn_gate", hidden, dim);
    add(kUp, "ffn_up", hidden, dim);
    add(kDown, "ffn_down", dim, hidden);
  }
  specs.push_back({kFinalNorm, 0, "output_norm.weight", 1, dim});
  specs.push_back({kOutput, 0, "output.weight", vocab, dim});
  return specs;
}

std::string hf_tensor_name(const ModelTensor& spec) {
  const auto in_layer = [&](const char* name) {
    return "model.layers." + std::to_string(spec.layer) + "." + name + ".weight";
  };
  switch (spec.role) {
    case TensorRole::kTokenEmbedding: return "model.embed_tokens.weight";
    case TensorRole::kAttentionNorm: return in_layer("input_layernorm");
    case TensorRole::kQ: return in_layer("self_attn.q_proj");
    case TensorRole::kK: return in_layer("self_attn.k_proj");
    case TensorRole::kV: return in_layer("self_attn.v_proj");
    case TensorRole::kAttentionOutput: return in_layer("self_attn.o_proj");
    case TensorRole::kFfnNorm: return in_layer("post_attention_layernorm");
    case TensorRole::kGate: return in_layer("mlp.gate_proj");
    case TensorRole::kUp: return in_layer("mlp.up_proj");
    case TensorRole::kDown: return in_layer("mlp.down_proj");
    case TensorRole::kFinalNorm: return "model.norm.weight";
    case TensorRole::kOutput: break;
  }
  return "lm_head.weight";
}

std::string mistral_tensor_name(const ModelTensor& spec) {
  const auto in_layer = [&](const char* name) {
    return "layers." + std::to_string(spec.layer) + "." + name + ".weight";
  };
  switch (spec.role) {
    case TensorRole::kTokenEmbedding: return "tok_embeddings.weight";
    case TensorRole::kAttentionNorm: return in_layer("attention_norm");
    case TensorRole::kQ: return in_layer("attention.wq");
    case TensorRole::kK: return in_layer("attention.wk");
    case TensorRole::kV: return in_layer("attention.wv");
    case TensorRole::kAttentionOutput: return in_layer("attention.wo");
    case TensorRole::kFfnNorm: return in_layer("ffn_norm");
    case TensorRole::kGate: return in_layer("feed_forward.w1");
    case TensorRole::kUp: return in_layer("feed_forward.w3");
    case TensorRole::kDown: return in_layer("feed_forward.w2");
    case TensorRole::kFinalNorm: return "norm.weight";
    case TensorRole::kOutput: break;
  }
  return "output.weight";
}

}  // namespace maestrale
