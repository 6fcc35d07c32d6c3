// SPDX-License-Identifier: Apache-2.0
// LoRA adapters as PEFT saves them. For a module P, e.g. base_model.model.model.layers.0.self_attn.q_proj:
//
//   P.lora_A.weight            (rank, in)
//   P.lora_B.weight            (out, rank)
//   P.lora_magnitude_vector    (out), with DoRA
//   P.weight                   (out, in), of a module that was trained as a whole (modules_to_save)
//
// Old versions wrote ".default" or ".modules_to_save" into the names.
#pragma once

#include <string>

#include "model/adapter_file.h"

namespace maestrale {

// Throws as read_adapter_file() does, which calls this for a directory.
AdapterFile read_peft_adapter(const std::string& directory, const ModelConfig& config);

}  // namespace maestrale
