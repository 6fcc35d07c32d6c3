// SPDX-License-Identifier: Apache-2.0
// config.json: the fields and their defaults, the older and the newer spelling, what is refused.
#include "model/hf_config.h"

#include "base/error.h"
#include "check.h"
#include "expect_error.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

const std::string kBase = R"("model_type":"mistral","architectures":["MistralForCausalLM"],"hidden_size":256,
  "intermediate_size":512,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":128,
  "vocab_size":512,"max_position_embeddings":32768,"rms_norm_eps":1e-05,"hidden_act":"silu")";

// A sound config with some fields more; the reader takes no field twice, so `without` makes room.
HfConfig read(const std::string& more, const std::string& without = "") {
  std::string text = "{" + kBase + (more.empty() ? "" : "," + more) + "}";
  if (!without.empty()) {
    const size_t at = text.find("\"" + without + "\"");
    const size_t bracket = text[text.find(':', at) + 1] == '[' ? text.find(']', at) : at;
    text.erase(at, text.find(',', bracket) + 1 - at);
  }
  return config_from_hf(Json::parse(text));
}

void refuse(const std::string& more, ErrorCode code, const std::string& words,
            const std::string& without = "") {
  expect_error(more + " without " + without, code, words, [&] { read(more, without); });
}

}  // namespace

TEST("hf_config: numbers") {
  const ModelConfig c = read(R"("sliding_window":64,"rope_theta":1000000.0)").model;
  CHECK_EQ(c.dim, 256);
  CHECK_EQ(c.hidden_dim, 512);
  CHECK_EQ(c.n_layers, 2);
  CHECK_EQ(c.n_heads, 4);
  CHECK_EQ(c.n_kv_heads, 2);
  CHECK_EQ(c.head_dim, 128);
  CHECK_EQ(c.vocab_size, 512);
  CHECK_EQ(c.context_length, 32768);
  CHECK_EQ(c.norm_eps, 1e-5f);
  CHECK_EQ(c.rope_theta, 1e6);
  CHECK_EQ(c.sliding_window, 64);
  CHECK_EQ(c.sliding_window_source, std::string("metadata"));
  CHECK(!read("").tied);
  CHECK(read(R"("tie_word_embeddings":true)").tied);
}

TEST("hf_config: an absent window is transformers' default, null is none") {
  CHECK_EQ(read("").model.sliding_window, 4096);
  CHECK_EQ(read("").model.sliding_window_source, std::string("default"));
  CHECK_EQ(read(R"("sliding_window":null)").model.sliding_window, 0);
  CHECK_EQ(read(R"("sliding_window":null)").model.sliding_window_source, std::string("none"));
  refuse(R"("sliding_window":0)", ErrorCode::kModelFormat, "'sliding_window' of config.json is 0");
  refuse(R"("sliding_window":1.5)", ErrorCode::kModelFormat, "not an integer");
}

TEST("hf_config: Llama is the same network without a window") {
  const std::string llama = R"("model_type":"llama","architectures":["LlamaForCausalLM"],)";
  std::string text = "{" + kBase + "}";
  text.replace(text.find("\"model_type\""), text.find("\"hidden_size\"") - 1, llama);
  CHECK_EQ(config_from_hf(Json::parse(text)).model.sliding_window, 0);
}

TEST("hf_config: heads") {
  CHECK_EQ(read(R"("head_dim":null)", "head_dim").model.head_dim, 64);
  CHECK_EQ(read("", "head_dim").model.head_dim, 64);
  CHECK_EQ(read(R"("num_key_value_heads":null)", "num_key_value_heads").model.n_kv_heads, 4);
  refuse(R"("num_key_value_heads":3)", ErrorCode::kModelFormat, "does not divide", "num_key_value_heads");
  refuse("", ErrorCode::kModelFormat, "8, which does not divide the 4", "num_key_value_heads");
  refuse(R"("head_dim":24)", ErrorCode::kModelUnsupported, "heads of 24 values", "head_dim");
}

TEST("hf_config: RoPE in the older and the newer spelling") {
  CHECK_EQ(read("").model.rope_theta, 10000.0);
  CHECK_EQ(read(R"("rope_parameters":{"rope_theta":500000,"rope_type":"default"})").model.rope_theta, 5e5);
  CHECK_EQ(read(R"("rope_scaling":null,"rope_theta":7)").model.rope_theta, 7.0);
  refuse(R"("rope_scaling":{"type":"linear","factor":2})", ErrorCode::kModelUnsupported, "'linear'");
  refuse(R"("rope_parameters":{"rope_type":"yarn"})", ErrorCode::kModelUnsupported, "'yarn'");
  refuse(R"("rope_scaling":{"factor":4.0})", ErrorCode::kModelUnsupported, "by 4");
  refuse(R"("rope_theta":-1)", ErrorCode::kModelFormat, "above 0");
}

TEST("hf_config: missing and damaged fields are named") {
  for (const std::string field : {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
                                  "num_attention_heads", "vocab_size", "max_position_embeddings"})
    refuse("", ErrorCode::kModelFormat, "'" + field + "' of config.json is missing", field);
  refuse(R"("vocab_size":"many")", ErrorCode::kModelFormat, "'vocab_size' of config.json is not an integer",
         "vocab_size");
  refuse(R"("num_hidden_layers":100000000000)", ErrorCode::kModelFormat, "must be 1 to 512",
         "num_hidden_layers");
  refuse(R"("rms_norm_eps":0)", ErrorCode::kModelFormat, "between 0 and 1", "rms_norm_eps");
  CHECK_THROWS(config_from_hf(Json::parse("[]")), ErrorCode::kModelFormat);
}

TEST("hf_config: what Mistral does not have is refused by name") {
  refuse(R"("model_type":"qwen2")", ErrorCode::kModelUnsupported, "'qwen2'", "model_type");
  refuse(R"("architectures":["MistralForSequenceClassification"])", ErrorCode::kModelUnsupported,
         "MistralForSequenceClassification", "architectures");
  refuse(R"("hidden_act":"gelu"})", ErrorCode::kModelFormat, "");
  refuse(R"("attention_bias":true)", ErrorCode::kModelUnsupported, "'attention_bias'");
  refuse(R"("layer_types":["sliding_attention","full_attention"],"sliding_window":8)",
         ErrorCode::kModelUnsupported, "'layer_types'");
  CHECK_EQ(
      read(R"("layer_types":["full_attention","full_attention"],"sliding_window":null)").model.sliding_window,
      0);
  refuse(R"("quantization_config":{"quant_method":"gptq"})", ErrorCode::kModelUnsupported, "'gptq'");
  refuse(R"("quantization_config":{"quant_method":"bitsandbytes","load_in_8bit":true})",
         ErrorCode::kModelUnsupported, "in 4 bits");
}
