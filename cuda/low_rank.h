// SPDX-License-Identifier: Apache-2.0
// Launches what adapters add to products, two kernels for all adapters of a batch.
#pragma once

#include <span>

#include "backend/adapter_ops.h"
#include "cuda/device.h"
#include "cuda/kernels.h"
#include "cuda/products.h"
#include "cuda/step.h"

namespace maestrale::cuda {

class LowRankProducts {
 public:
  LowRankProducts(const Device& device, const Kernels& kernels)
      : kernels_(kernels), uploads_{{device, "batch"}, {device, "batch"}} {}

  // See AdapterOps.
  void set_adapters(const Step& step, std::span<const AdapterRows> groups);
  // x is in memory, or still to go through `norm`. kAdd and kSwiGlu put what they make of all rows of the one
  // or two products in `target`.
  void add(Tensor x, const Norm* norm, std::span<const NumberedProduct> products, Epilogue epilogue,
           Tensor target = {}) const;
  void landed() {
    for (Upload& upload : uploads_) upload.landed();
    next_ = 0;  // so that steps of decoding use the same one
  }

 private:
  const Kernels& kernels_;
  Upload uploads_[2];  // in turn: rows change in the middle of a step, see Backend::gather_rows
  int next_ = 0;
  DevicePointer segments_ = 0;
  int64_t n_segments_ = 0;
};

}  // namespace maestrale::cuda
