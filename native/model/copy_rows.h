// SPDX-License-Identifier: Apache-2.0
// From the rows of a model's tensors to a file, whatever its format: with all threads, a few megabytes in
// memory at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>

#include "model/loader.h"
#include "model/weight_store.h"

namespace maestrale {

struct WrittenModel {
  uint64_t bytes = 0;                  // of the files that hold the weights
  std::map<QuantType, int64_t> types;  // tensors by type
  // sqrt(sum (written - original)^2 / sum original^2) over all matrices whose type changed, 0 when none did.
  // Norms, which no format rounds, would only make it look smaller.
  double relative_error = 0;
};

// Hands the rows of all tensors of `weights` in order to `write`, in pieces that end where a tensor ends.
// `original`: the weights that `weights` stand for, in the same order, to measure the error against; they are
// read once more for it. `threads` 0: as many as the CPUs this process may use. Progress counts bytes of the
// weights. Sets all of the result but its `bytes`. Throws Error: kAborted, or what the sources and `write`
// throw.
WrittenModel copy_rows(const WeightStore& weights, const WeightStore& original, int32_t threads,
                       const LoadCallbacks& callbacks,
                       const std::function<void(std::span<const std::byte>)>& write);

}  // namespace maestrale
