// SPDX-License-Identifier: Apache-2.0
// LoRA adapters in GGUF, as llama.cpp's converter writes them: general.type "adapter", adapter.type "lora",
// adapter.lora.alpha, and for a base tensor T the tensors T.lora_a (in, rank) and T.lora_b (rank, out), sizes
// in GGUF's order. Rows of Q and K are in GGUF's order already.
#pragma once

#include <memory>

#include "model/adapter_file.h"

namespace maestrale {

// Throws as read_adapter_file() does, which calls this for a file.
AdapterFile read_gguf_adapter(std::shared_ptr<const MappedFile> file, const ModelConfig& config);

}  // namespace maestrale
