// SPDX-License-Identifier: Apache-2.0
// From a file and the user's options to a running engine.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "model/loader.h"

namespace maestrale {

struct OpenOptions {
  std::string path;
  std::string device = "auto";  // "auto", "cpu", "cuda", "cuda:N"
  int32_t threads = 0;          // 0: the CPUs this process may use
  std::string isa;              // "": the best of the machine
  int64_t context_length = 0;   // 0: what the model was trained for
  int64_t sliding_window = -1;  // -1: from the file; 0: full attention
  KvType kv_type = KvType::kF16;
  int32_t max_sequences = 16;
  int32_t max_batch_tokens = 512;
  int32_t max_queue = 1024;
  int32_t gpu_layers = -1;    // -1: as many as fit
  std::string quantization;   // name of a QuantMix to quantise to; "": as stored
  bool double_quant = false;  // see QuantizedWeights
};

// What the file says about itself, kept after it is closed.
struct FileFacts {
  uint64_t size = 0;                            // bytes
  uint64_t parameters = 0;                      // weights
  std::map<std::string, int64_t> quantization;  // tensors by type, lower-case names
};

struct OpenedModel {
  std::unique_ptr<Engine> engine;
  std::shared_ptr<const Tokenizer> tokenizer;
  ModelConfig config;
  FileFacts facts;
  std::string path, quantization;  // as they were given
  bool double_quant = false;       // likewise
  int32_t gpu_layers = 0;          // on the GPU; the layers before them are on the CPU
  std::string device_reason;       // why device 'auto' is the CPU; empty when it is not or was not asked for
};

// Takes as long as reading the file takes: call it on a thread of its own. Throws Error.
OpenedModel open_model(const OpenOptions& options, const LoadCallbacks& callbacks, EventSink sink);

// The weights of the file at `path`, opened once more, which the result keeps open.
// `quantization` and `double_quant` as they were when the model was loaded.
std::shared_ptr<const WeightStore> open_base_weights(const std::string& path,
                                                     const std::string& quantization = "",
                                                     bool double_quant = false);

// The tokenizer alone, also from a file that holds nothing but a vocabulary. Throws Error.
std::shared_ptr<const Tokenizer> open_tokenizer(const std::string& path);

}  // namespace maestrale
