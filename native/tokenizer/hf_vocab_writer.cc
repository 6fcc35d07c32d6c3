// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/hf_vocab_writer.h"

#include "base/json_text.h"

namespace maestrale {
namespace {

std::string template_entry(const std::string& name, const std::string& source) {
  return "{\"name\": " + json_string(name) + ", \"template\": " + json_string(source) + "}";
}

// One text, or a list of named ones.
std::string templates(const Vocab& vocab) {
  if (vocab.named_chat_templates.empty()) return json_string(vocab.chat_template);
  std::string list;
  if (!vocab.chat_template.empty()) list = template_entry("default", vocab.chat_template);
  for (const auto& [name, source] : vocab.named_chat_templates)
    list += (list.empty() ? "" : ", ") + template_entry(name, source);
  return "[" + list + "]";
}

}  // namespace

std::string tokenizer_config(const Vocab& vocab) {
  JsonObjectText config;
  config.add_string("tokenizer_class", "LlamaTokenizer");
  config.add_flag("add_bos_token", vocab.add_bos);
  config.add_flag("add_eos_token", vocab.add_eos);
  config.add_flag("add_prefix_space", vocab.add_space_prefix);
  config.add_flag("clean_up_tokenization_spaces", false);
  config.add_string("bos_token", vocab.pieces[size_t(vocab.bos)]);
  config.add_string("eos_token", vocab.pieces[size_t(vocab.eos)]);
  config.add_string("unk_token", vocab.pieces[size_t(vocab.unk)]);
  if (!vocab.chat_template.empty() || !vocab.named_chat_templates.empty())
    config.add("chat_template", templates(vocab));
  return config.text();
}

}  // namespace maestrale
