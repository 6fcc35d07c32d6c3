// SPDX-License-Identifier: Apache-2.0
#include "engine/open.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <utility>

#include "cpu/cpu_backend.h"
#include "engine/machine.h"
#include "engine/memory_budget.h"
#include "engine/model_source.h"
#include "engine/packed_file.h"
#include "engine/placement.h"
#include "io/mapped_file.h"
#include "model/quantized_weights.h"
#include "tokenizer/gguf_vocab.h"
#include "tokenizer/hf_vocab.h"
#ifdef MAESTRALE_CUDA
#include "cuda/cuda_backend.h"
#endif

namespace maestrale {
namespace {

// Pages kept for the prefixes of later requests: 4096 positions, one window of Mistral 7B v0.1.
constexpr int64_t kCachedPages = 64;

bool wants_cuda(const OpenOptions& options) { return options.device.starts_with("cuda"); }

#ifndef MAESTRALE_CUDA
std::unique_ptr<Backend> make_cuda_backend(int) {
  throw Error(ErrorCode::kDevice, "device 'cuda' is not available: this build has no CUDA back end");
}
uint64_t cuda_free_memory(const Backend&) { return 0; }
#endif

CpuOptions cpu_options(const OpenOptions& options) {
  return {.threads = options.threads, .isa = options.isa, .weights = {}, .weights_owner = {}};
}

// All but the number of pages, which depends on what the weights leave.
EngineConfig engine_config(const ModelConfig& config, const OpenOptions& options) {
  EngineConfig engine;
  engine.context_length = options.context_length > 0 ? options.context_length : config.context_length;
  engine.sliding_window = config.sliding_window;
  engine.max_sequences = options.max_sequences;
  engine.max_batch_tokens = options.max_batch_tokens;
  engine.max_queue = options.max_queue;
  engine.kv_type = options.kv_type;
  return engine;
}

void check_gpu_layers(const OpenOptions& options) {
  if (options.gpu_layers > 0 && !wants_cuda(options))
    throw Error(ErrorCode::kDevice, "gpuLayers is " + std::to_string(options.gpu_layers) +
                                        ", but the device is '" + options.device +
                                        "'; only 'cuda' has GPU layers");
}

// For 'cpu' and 'cuda', see open_model() for 'auto'.
std::vector<Stage> make_stages(const WeightStore& weights, const ModelConfig& config,
                               const OpenOptions& options) {
  const int32_t n_layers = config.n_layers;
  std::vector<Stage> stages;
  check_gpu_layers(options);
  if (!wants_cuda(options)) {
    stages.push_back({make_cpu_backend(cpu_options(options)), 0, n_layers});
    return stages;
  }
  const size_t colon = options.device.find(':');
  auto gpu = make_cuda_backend(colon == std::string::npos ? 0 : std::stoi(options.device.substr(colon + 1)));
  int32_t n = std::min(options.gpu_layers, n_layers);
  if (n < 0) {
    const uint64_t available = cuda_free_memory(*gpu);
    n = layers_within(available, placement_sizes(weights, config, *gpu, engine_config(config, options)));
    if (n == 0)
      throw Error(
          ErrorCode::kOutOfMemory,
          "the GPU has " + std::to_string(available >> 20) +
              " MiB free, too little for one layer, the output matrix and the KV cache of one sequence; "
              "lower contextLength or maxBatchTokens, or set gpuLayers");
  }
  if (n < n_layers) stages.push_back({make_cpu_backend(cpu_options(options)), 0, n_layers - n});
  stages.push_back({std::move(gpu), n_layers - n, n_layers});
  return stages;
}

bool is_gpu(const Stage& stage) { return stage.backend->device().starts_with("cuda"); }

FileFacts facts_of(const WeightStore& weights, uint64_t size) {
  FileFacts facts;
  facts.size = size;
  for (const ModelTensor& tensor : weights.tensors()) {
    facts.parameters += uint64_t(tensor.rows) * uint64_t(tensor.cols);
    ++facts.quantization[lower_case_name(weights.type(tensor))];
  }
  return facts;
}

// What a model consists of, apart from its engine, while it is loaded.
struct Opened {
  ModelConfig config;
  Vocab vocab;
  FileFacts facts;
  std::unique_ptr<Model> model;
};

void finish_config(ModelConfig& config, const Vocab& vocab, const OpenOptions& options) {
  if (options.sliding_window >= 0) {
    config.sliding_window = options.sliding_window;
    config.sliding_window_source = "option";
  }
  if (vocab.size() > config.vocab_size)
    throw Error(ErrorCode::kModelFormat, "the vocabulary has " + std::to_string(vocab.size()) +
                                             " tokens, the embedding " + std::to_string(config.vocab_size) +
                                             " rows");
}

void load_weights(const WeightStore& weights, uint64_t size, const OpenOptions& options,
                  const LoadCallbacks& callbacks, Opened& opened) {
  if (!options.quantization.empty()) {
    OpenOptions as_stored = options;
    as_stored.quantization.clear();
    const QuantizedWeights quantized(weights, quant_mix(options.quantization), opened.config,
                                     options.double_quant);
    return load_weights(quantized, size, as_stored, callbacks, opened);
  }
  finish_config(opened.config, opened.vocab, options);
  opened.facts = facts_of(weights, size);
  opened.model = load_model(weights, opened.config, make_stages(weights, opened.config, options), callbacks);
}

// On the CPU a packed file is used where it is mapped; elsewhere, and quantised anew, it is read as others
// are.
bool stays_in_file(const ModelPath& path, const OpenOptions& options) {
  return path.form == ModelForm::kPacked && !wants_cuda(options) && options.quantization.empty();
}

Opened open_in_file(std::shared_ptr<const MappedFile> file, const OpenOptions& options,
                    const LoadCallbacks& callbacks) {
  check_gpu_layers(options);
  const PackedFile packed(std::move(file));
  Opened opened{config_from_gguf(packed.gguf()), vocab_from_gguf(packed.gguf()), {}, nullptr};
  finish_config(opened.config, opened.vocab, options);
  opened.facts = facts_of(PackedWeights(packed, opened.config), packed.file()->size());
  opened.model = load_packed_model(packed, opened.config, cpu_options(options), callbacks);
  return opened;
}

Opened open_any(const OpenOptions& options, const LoadCallbacks& callbacks) {
  const ModelPath path(options.path);
  if (stays_in_file(path, options)) return open_in_file(path.file, options, callbacks);
  const std::unique_ptr<const ModelSource> source = open_model_source(path);
  Opened opened{source->config(), source->vocab(), {}, nullptr};
  load_weights(source->weights(), source->bytes(), options, callbacks, opened);
  return opened;
}

// On the device that the options name.
OpenedModel open_on_device(const OpenOptions& options, const LoadCallbacks& callbacks, EventSink sink) {
  Opened parts = open_any(options, callbacks);
  OpenedModel opened;
  opened.tokenizer = std::make_shared<const Tokenizer>(std::move(parts.vocab));
  opened.facts = std::move(parts.facts);
  opened.config = std::move(parts.config);
  opened.path = options.path;
  opened.quantization = options.quantization;
  opened.double_quant = options.double_quant;
  const ModelConfig& config = opened.config;
  const std::unique_ptr<Model>& model = parts.model;

  EngineConfig engine = engine_config(config, options);
  engine.max_pages = std::numeric_limits<int64_t>::max();
  for (const Stage& stage : model->stages()) {  // a page has layers in each of them
    const uint64_t available = is_gpu(stage) ? cuda_free_memory(*stage.backend) : available_memory();
    engine.max_pages = std::min(engine.max_pages, pages_within(available, stage, config, engine));
    if (is_gpu(stage)) opened.gpu_layers += stage.end_layer - stage.first_layer;
  }
  engine.max_cached_pages = std::min(kCachedPages, engine.max_pages);
  opened.engine = std::make_unique<Engine>(std::move(parts.model), opened.tokenizer, engine, std::move(sink));
  return opened;
}

// Why there is no use in asking for a GPU; empty when there may be one.
std::string no_gpu_reason(const OpenOptions& options) {
  if (options.gpu_layers == 0) return "gpuLayers is 0";
#ifdef MAESTRALE_CUDA
  // Tests have run on the simulator only. Until they have on a GPU, nobody gets one unasked.
  if (std::getenv("MAESTRALE_CUDA_DRIVER") == nullptr)
    return "the CUDA back end has not been proven on hardware yet and must be asked for: device 'cuda', or "
           "MAESTRALE_CUDA_DRIVER with the path of the driver";
#endif
  try {
    count_cuda_devices();
    return "";
  } catch (const Error& error) {
    return error.message();
  }
}

}  // namespace

OpenedModel open_model(const OpenOptions& options, const LoadCallbacks& callbacks, EventSink sink) {
  OpenOptions chosen = options;
  if (wants_cuda(options) && options.gpu_layers == 0) chosen.device = "cpu";
  if (options.device != "auto") return open_on_device(chosen, callbacks, std::move(sink));
  std::string reason = no_gpu_reason(options);
  if (reason.empty()) {
    chosen.device = "cuda";
    try {
      return open_on_device(chosen, callbacks, sink);
    } catch (const Error& error) {  // of the model itself, the CPU would have it too
      if (error.code() != ErrorCode::kDevice && error.code() != ErrorCode::kOutOfMemory) throw;
      reason = error.message();
    }
  }
  if (options.gpu_layers > 0)
    throw Error(ErrorCode::kDevice, "gpuLayers is " + std::to_string(options.gpu_layers) + ", but " + reason);
  chosen.device = "cpu";
  OpenedModel opened = open_on_device(chosen, callbacks, std::move(sink));
  opened.device_reason = reason;
  return opened;
}

std::shared_ptr<const WeightStore> open_base_weights(const std::string& path, const std::string& quantization,
                                                     bool double_quant) {
  const std::shared_ptr<const ModelSource> source = open_model_source(ModelPath(path));
  if (quantization.empty()) return {source, &source->weights()};
  struct Quantized {
    Quantized(std::shared_ptr<const ModelSource> inner, const QuantMix& mix, bool double_quant)
        : source(std::move(inner)), weights(source->weights(), mix, source->config(), double_quant) {}
    const std::shared_ptr<const ModelSource> source;
    const QuantizedWeights weights;
  };
  const auto opened = std::make_shared<const Quantized>(source, quant_mix(quantization), double_quant);
  return {opened, &opened->weights};
}

std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& path) {
  const ModelPath model(path);
  const auto vocab = [&] {
    switch (model.form) {
      case ModelForm::kDirectory: return vocab_from_hf(path);
      case ModelForm::kPacked: return vocab_from_gguf(PackedFile(model.file).gguf());
      case ModelForm::kGguf: break;
    }
    return vocab_from_gguf(GgufFile::parse(model.file->bytes(), model.file->size()));
  };
  return std::make_shared<const Tokenizer>(vocab());
}

}  // namespace maestrale
