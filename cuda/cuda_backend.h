// SPDX-License-Identifier: Apache-2.0
// The CUDA implementation of Backend: a model, or its last layers, on one GPU.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"

namespace maestrale {

// Device `ordinal` of the NVIDIA driver. Throws Error{kDevice} with the reason when it cannot be used.
std::unique_ptr<Backend> make_cuda_backend(int ordinal);

// Bytes that are free on the device of a CUDA backend.
uint64_t cuda_free_memory(const Backend& backend);

}  // namespace maestrale
