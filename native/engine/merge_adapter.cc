// SPDX-License-Identifier: Apache-2.0
#include "engine/merge_adapter.h"

#include <memory>

#include "base/error.h"
#include "engine/quantize_model.h"
#include "engine/write_checkpoint.h"
#include "model/gguf_config.h"
#include "model/merged_weights.h"
#include "model/quantized_weights.h"
#include "model/write_gguf.h"

namespace maestrale {
namespace {

bool is_float(QuantType type) { return quant_traits(type).items_per_block == 1; }

// The mix that was asked for, nullptr when every matrix keeps its type.
const QuantMix* chosen_mix(const MergeOptions& options) {
  if (options.type.empty()) return nullptr;
  const QuantMix& mix = gguf_mix(options.type);
  if (options.format == MergeFormat::kSafetensors && !is_float(mix.base))
    throw Error(ErrorCode::kInvalidArg,
                "a Hugging Face directory holds weights in f32, f16 or bf16, not in '" + options.type +
                    "'; write a GGUF file for that");
  return &mix;
}

// Without a mix. Norms are never rounded; readers of GGUF files expect them in F32.
QuantType kept_type(QuantType type, const ModelTensor& tensor, MergeFormat format) {
  if (format == MergeFormat::kGguf) return tensor.is_norm() ? QuantType::kF32 : type;
  return is_float(type) ? type : QuantType::kF16;
}

std::unique_ptr<const WeightStore> retyped(const WeightStore& merged, const ModelSource& base,
                                           const QuantMix* mix, MergeFormat format) {
  if (mix != nullptr) return std::make_unique<QuantizedWeights>(merged, *mix, base.config());
  return std::make_unique<RetypedWeights>(merged, [&base, format](const ModelTensor& tensor) {
    return kept_type(base.weights().type(tensor), tensor, format);
  });
}

}  // namespace

WrittenModel merge_adapter(const std::string& in, const std::string& out, const MergeOptions& options,
                           const LoadCallbacks& callbacks) {
  const QuantMix* mix = chosen_mix(options);
  const std::unique_ptr<const ModelSource> source = open_to_rewrite(in, out);
  const AdapterFile adapter = read_adapter_file(options.adapter, source->config());
  const MergedWeights merged(source->weights(), adapter, options.scale);
  const std::unique_ptr<const WeightStore> weights = retyped(merged, *source, mix, options.format);
  if (options.format == MergeFormat::kSafetensors)
    return write_checkpoint(out, *source, *weights, merged, options.threads, callbacks);
  GgufMetadata metadata = source->metadata();
  write_sliding_window(source->config(), metadata);
  if (mix != nullptr) write_quantization(mix->file_type, metadata);
  return write_gguf(out, metadata, *weights, merged, options.threads, callbacks);
}

}  // namespace maestrale
