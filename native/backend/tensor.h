// SPDX-License-Identifier: Apache-2.0
// Views of what a backend holds: activations, weight matrices, and the products of the two.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/types.h"

namespace maestrale {

// Activations: float32, row-major, (rows of the batch, cols). `data` lives on the device.
struct Tensor {
  float* data = nullptr;
  int64_t cols = 0;
};

// A weight matrix (rows = output features, cols = input features) in the backend's own layout.
struct Matrix {
  QuantType type = QuantType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* data = nullptr;
};

// One product of a call to `matmul`: out = x * weight^T, all projections of a call share x.
struct Projection {
  const Matrix* weight;
  Tensor out;  // cols = weight->rows
};

}  // namespace maestrale
