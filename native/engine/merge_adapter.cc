// SPDX-License-Identifier: Apache-2.0
#include "engine/merge_adapter.h"

#include <memory>

#include "base/error.h"
#include "engine/quantize_model.h"
#include "model/gguf_config.h"
#include "model/merged_weights.h"
#include "model/quantized_weights.h"

namespace maestrale {

WrittenModel merge_adapter(const std::string& in, const std::string& out, const MergeOptions& options,
                           const LoadCallbacks& callbacks) {
  const QuantMix* mix = options.type.empty() ? nullptr : &gguf_mix(options.type);
  const std::unique_ptr<const ModelSource> source = open_to_rewrite(in, out);
  const AdapterFile adapter = read_adapter_file(options.adapter, source->config());
  const MergedWeights merged(source->weights(), adapter, options.scale);
  GgufMetadata metadata = source->metadata();
  write_sliding_window(source->config(), metadata);
  if (mix == nullptr)
    return write_gguf(out, metadata, RetypedWeights(merged, source->weights()), merged, options.threads,
                      callbacks);
  write_quantization(mix->file_type, metadata);
  const QuantizedWeights quantized(merged, *mix, source->config());
  return write_gguf(out, metadata, quantized, merged, options.threads, callbacks);
}

}  // namespace maestrale
