// SPDX-License-Identifier: Apache-2.0
#include "cuda/step.h"

#include <algorithm>
#include <cmath>

namespace maestrale::cuda {

void Step::begin(const Batch& batch) {
  n_rows = batch.n_rows();
  decodes = std::all_of(batch.sequences.begin(), batch.sequences.end(),
                        [](const BatchSequence& sequence) { return sequence.n_rows <= 1; });
  const uint64_t rows = uint64_t(n_rows), pairs = inv_freq_.size();
  const uint64_t angles_at = rows * sizeof(int64_t), tokens_at = angles_at + rows * pairs * 2 * sizeof(float),
                 bytes = tokens_at + rows * sizeof(int32_t);
  std::byte* memory = upload_.prepare(bytes);
  auto* slot = reinterpret_cast<int64_t*>(memory);
  auto* angle = reinterpret_cast<float*>(memory + angles_at);
  std::copy(batch.tokens.begin(), batch.tokens.end(), reinterpret_cast<int32_t*>(memory + tokens_at));
  for (const BatchSequence& sequence : batch.sequences)
    for (int32_t i = 0; i < sequence.n_rows; ++i) {
      const size_t row = size_t(sequence.first_row + i);
      const int64_t position = sequence.first_position + i;
      const PageId page = sequence.pages[size_t(position / kPagePositions - sequence.first_page)];
      slot[row] = page * kPagePositions + position % kPagePositions;
      for (size_t m = 0; m < pairs; ++m) {
        const double radians = double(position) * inv_freq_[m];
        angle[2 * (row * pairs + m)] = float(std::cos(radians));
        angle[2 * (row * pairs + m) + 1] = float(std::sin(radians));
      }
    }
  slots = upload_.send(bytes);
  angles = slots + angles_at;
  tokens = slots + tokens_at;
}

}  // namespace maestrale::cuda
