// SPDX-License-Identifier: Apache-2.0
#include "cuda/step.h"

#include <algorithm>
#include <cmath>

namespace maestrale::cuda {

void Step::begin(const Batch& batch, const KvConfig& kv, int64_t page_elements) {
  n_rows = batch.n_rows();
  const uint64_t rows = uint64_t(n_rows), pairs = inv_freq_.size();
  uint64_t n_pages = 0;
  for (const BatchSequence& sequence : batch.sequences) n_pages += sequence.pages.size();
  // The parts with the widest elements first.
  const uint64_t slots_at = rows * sizeof(Query), angles_at = slots_at + rows * sizeof(int64_t),
                 tokens_at = angles_at + rows * pairs * 2 * sizeof(float),
                 pages_at = tokens_at + rows * sizeof(int32_t), bytes = pages_at + n_pages * sizeof(PageId);
  std::byte* memory = upload_.prepare(bytes);
  auto* query = reinterpret_cast<Query*>(memory);
  auto* slot = reinterpret_cast<int64_t*>(memory + slots_at);
  auto* angle = reinterpret_cast<float*>(memory + angles_at);
  auto* page = reinterpret_cast<PageId*>(memory + pages_at);
  std::copy(batch.tokens.begin(), batch.tokens.end(), reinterpret_cast<int32_t*>(memory + tokens_at));

  int64_t first_of_table = 0;
  for (const BatchSequence& sequence : batch.sequences) {
    for (int32_t i = 0; i < sequence.n_rows; ++i) {
      const size_t row = size_t(sequence.first_row + i);
      const int64_t position = sequence.first_position + i;
      const int64_t window = kv.sliding_window > 0 ? kv.sliding_window : position + 1;
      query[row] = {std::max<int64_t>(0, position - window + 1), position, sequence.first_page,
                    first_of_table};
      const PageId own = sequence.pages[size_t(position / kPagePositions - sequence.first_page)];
      slot[row] = own * page_elements + position % kPagePositions * kv.head_dim;
      for (size_t m = 0; m < pairs; ++m) {
        const double radians = double(position) * inv_freq_[m];
        angle[2 * (row * pairs + m)] = float(std::cos(radians));
        angle[2 * (row * pairs + m) + 1] = float(std::sin(radians));
      }
    }
    page = std::copy(sequence.pages.begin(), sequence.pages.end(), page);
    first_of_table += int64_t(sequence.pages.size());
  }
  queries = upload_.send(bytes);
  slots = queries + slots_at;
  angles = queries + angles_at;
  tokens = queries + tokens_at;
  pages = queries + pages_at;
}

}  // namespace maestrale::cuda
