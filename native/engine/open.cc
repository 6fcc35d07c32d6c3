// SPDX-License-Identifier: Apache-2.0
#include "engine/open.h"

#include <algorithm>
#include <utility>

#include "cpu/cpu_backend.h"
#include "engine/memory_budget.h"
#include "io/mapped_file.h"
#include "tokenizer/gguf_vocab.h"

namespace maestrale {
namespace {

// Pages kept for the prefixes of later requests: 4096 positions, one window of Mistral 7B v0.1.
constexpr int64_t kCachedPages = 64;

std::unique_ptr<Backend> open_device(const OpenOptions& options) {
  if (options.device != "auto" && options.device != "cpu")
    throw Error(ErrorCode::kDevice,
                "device '" + options.device + "' is not available: this build computes on the CPU only");
  if (options.gpu_layers > 0)
    throw Error(ErrorCode::kDevice, "gpuLayers is " + std::to_string(options.gpu_layers) +
                                        ", but this build computes on the CPU only");
  return make_cpu_backend({options.threads, options.isa});
}

FileFacts facts_of(const MappedFile& file, const GgufFile& header) {
  FileFacts facts;
  facts.size = file.size();
  for (const GgufTensor& tensor : header.tensors()) {
    facts.parameters += uint64_t(tensor.rows) * uint64_t(tensor.cols);
    std::string type(quant_traits(tensor.type).name);
    for (char& c : type)
      if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    ++facts.quantization[type];
  }
  return facts;
}

}  // namespace

OpenedModel open_model(const OpenOptions& options, const LoadCallbacks& callbacks, EventSink sink) {
  const MappedFile file(options.path);
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  OpenedModel opened;
  opened.config = config_from_gguf(header);
  ModelConfig& config = opened.config;
  if (options.sliding_window >= 0) {
    config.sliding_window = options.sliding_window;
    config.sliding_window_source = "option";
  }
  opened.tokenizer = std::make_shared<const Tokenizer>(vocab_from_gguf(header));
  if (opened.tokenizer->vocab().size() > config.vocab_size)
    throw Error(ErrorCode::kModelFormat,
                "the vocabulary has " + std::to_string(opened.tokenizer->vocab().size()) +
                    " tokens, the embedding " + std::to_string(config.vocab_size) + " rows");
  opened.facts = facts_of(file, header);
  auto model = load_gguf_model(file, header, config, open_device(options), callbacks);

  EngineConfig engine;
  engine.context_length = options.context_length > 0 ? options.context_length : config.context_length;
  engine.sliding_window = config.sliding_window;
  engine.max_sequences = options.max_sequences;
  engine.max_batch_tokens = options.max_batch_tokens;
  engine.max_queue = options.max_queue;
  engine.kv_type = options.kv_type;
  const KvConfig kv{config.n_layers, config.n_kv_heads, config.head_dim,
                    options.kv_type, /* max_pages */ 1, config.sliding_window};
  engine.max_pages =
      kv_pages_within(available_memory(), model->backend().kv_page_bytes(kv),
                      pages_needed(engine.context_length, engine.sliding_window, engine.max_batch_tokens),
                      engine.max_sequences);
  engine.max_cached_pages = std::min(kCachedPages, engine.max_pages);
  opened.engine = std::make_unique<Engine>(std::move(model), opened.tokenizer, engine, std::move(sink));
  return opened;
}

std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& path) {
  const MappedFile file(path);
  const GgufFile header = GgufFile::parse(file.bytes(), file.size());
  return std::make_shared<const Tokenizer>(vocab_from_gguf(header));
}

}  // namespace maestrale
