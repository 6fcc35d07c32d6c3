// SPDX-License-Identifier: Apache-2.0
#include "engine/quantize_model.h"

#include <memory>

#include "base/error.h"
#include "model/gguf_config.h"
#include "model/quantized_weights.h"

namespace maestrale {

void write_quantization(uint32_t file_type, GgufMetadata& metadata) {
  metadata.set_u32("general.file_type", file_type);
  metadata.set_u32("general.quantization_version", 2);  // of the block formats
  metadata.erase_prefix("quantize.imatrix.");           // how the source was quantised
}

const QuantMix& gguf_mix(const std::string& name) {
  const QuantMix& mix = quant_mix(name);
  if (!is_gguf_type(mix.base))
    throw Error(ErrorCode::kInvalidArg, "GGUF files cannot hold '" + name + "', which is for loading only");
  return mix;
}

std::unique_ptr<const ModelSource> open_to_rewrite(const std::string& in, const std::string& out) {
  std::unique_ptr<const ModelSource> source = open_model_source(ModelPath(in), /* dequantize */ true);
  if (source->contains(out))
    throw Error(ErrorCode::kInvalidArg, "'" + out + "' is a file of the model that is to be read");
  return source;
}

WrittenModel quantize_model(const std::string& in, const std::string& out, const QuantizeOptions& options,
                            const LoadCallbacks& callbacks) {
  const QuantMix& mix = gguf_mix(options.type);
  const std::unique_ptr<const ModelSource> source = open_to_rewrite(in, out);
  ModelConfig config = source->config();
  if (options.sliding_window >= 0) config.sliding_window = options.sliding_window;
  GgufMetadata metadata = source->metadata();
  write_sliding_window(config, metadata);
  write_quantization(mix.file_type, metadata);
  const QuantizedWeights quantized(source->weights(), mix, config);
  return write_gguf(out, metadata, quantized, source->weights(), options.threads, callbacks);
}

}  // namespace maestrale
