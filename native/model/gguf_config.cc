// SPDX-License-Identifier: Apache-2.0
#include "model/gguf_config.h"

namespace maestrale {

void write_config(const ModelConfig& config, GgufMetadata& metadata) {
  metadata.set_string("general.architecture", "llama");
  metadata.set_string("general.name", config.name);
  metadata.set_u32("llama.context_length", uint32_t(config.context_length));
  metadata.set_u32("llama.embedding_length", uint32_t(config.dim));
  metadata.set_u32("llama.block_count", uint32_t(config.n_layers));
  metadata.set_u32("llama.feed_forward_length", uint32_t(config.hidden_dim));
  metadata.set_u32("llama.rope.dimension_count", uint32_t(config.head_dim));
  metadata.set_u32("llama.attention.head_count", uint32_t(config.n_heads));
  metadata.set_u32("llama.attention.head_count_kv", uint32_t(config.n_kv_heads));
  metadata.set_u32("llama.attention.key_length", uint32_t(config.head_dim));
  metadata.set_u32("llama.attention.value_length", uint32_t(config.head_dim));
  metadata.set_f32("llama.attention.layer_norm_rms_epsilon", config.norm_eps);
  metadata.set_f32("llama.rope.freq_base", float(config.rope_theta));
  metadata.set_u32("llama.vocab_size", uint32_t(config.vocab_size));
  write_sliding_window(config, metadata);
}

void write_sliding_window(const ModelConfig& config, GgufMetadata& metadata) {
  metadata.set_u32("llama.attention.sliding_window", uint32_t(config.sliding_window));
}

}  // namespace maestrale
