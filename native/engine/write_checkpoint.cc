// SPDX-License-Identifier: Apache-2.0
#include "engine/write_checkpoint.h"

#include <filesystem>

#include "io/text_file.h"
#include "model/hf_config_writer.h"
#include "tokenizer/hf_vocab_writer.h"
#include "tokenizer/spm_writer.h"

namespace maestrale {
namespace {

// config.json names the tokens that end a text too.
std::string ends_of_text(const Vocab& vocab) {
  if (vocab.other_eos.empty()) return std::to_string(vocab.eos);
  std::string list = std::to_string(vocab.eos);
  for (const int32_t id : vocab.other_eos) list += ", " + std::to_string(id);
  return "[" + list + "]";
}

std::string config_text(const ModelSource& source, const WeightStore& weights) {
  const bool tied = weights.tensors().back().role != TensorRole::kOutput;
  JsonObjectText json = hf_config(source.config(), weights.type(weights.tensors().front()), tied);
  json.add_integer("bos_token_id", source.vocab().bos);
  json.add("eos_token_id", ends_of_text(source.vocab()));
  return json.text();
}

void write_tokenizer(const ModelSource& source, const AtomicDirectory& directory) {
  const std::vector<std::string> files = source.side_files();
  for (const std::string& file : files) {
    const std::filesystem::path path(file);
    const std::string name = path.filename().string();
    if (const auto text = read_text(path.parent_path().string(), name)) directory.write(name, *text);
  }
  if (!files.empty() || !source.vocab().unusable.empty()) return;
  directory.write("tokenizer.model", spm_model(source.vocab()));
  directory.write("tokenizer_config.json", tokenizer_config(source.vocab()));
}

}  // namespace

WrittenModel write_checkpoint(const std::string& path, const ModelSource& source, const WeightStore& weights,
                              const WeightStore& original, int32_t threads, const LoadCallbacks& callbacks,
                              uint64_t shard_bytes) {
  AtomicDirectory directory(path);
  directory.write("config.json", config_text(source, weights));
  write_tokenizer(source, directory);
  const WrittenModel written =
      write_safetensors(directory, source.config(), weights, original, threads, callbacks, shard_bytes);
  directory.commit();
  return written;
}

}  // namespace maestrale
