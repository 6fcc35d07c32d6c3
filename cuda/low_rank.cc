// SPDX-License-Identifier: Apache-2.0
#include "cuda/low_rank.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/integer.h"
#include "cuda/adapter_memory.h"

namespace maestrale::cuda {

void LowRankProducts::set_adapters(const Step& step, std::span<const AdapterRows> groups) {
  std::vector<Segment> segments;
  int32_t end = 0;
  const auto append = [&](const AdapterMemory* adapter, RowRange rows) {
    end = rows.first + rows.count;
    for (int32_t first = rows.first; first < end; first += kSegmentRows) {
      const RowRange part{first, std::min(end - first, int32_t(kSegmentRows))};
      segments.push_back(adapter != nullptr ? adapter->segment(part)
                                            : Segment{0, 0, 0, part.first, part.count, 0});
    }
  };
  for (const auto& [adapter, rows] : groups) {
    append(nullptr, {end, rows.first - end});
    append(static_cast<const AdapterMemory*>(adapter), rows);
  }
  append(nullptr, {end, step.n_rows - end});
  // As many as there can be, so that the launches do not depend on who has which adapter.
  if (step.decodes) segments.resize(size_t(step.n_rows));
  n_segments_ = int64_t(segments.size());
  const uint64_t bytes = segments.size() * sizeof(Segment);
  Upload& upload = uploads_[next_];
  next_ ^= 1;
  std::memcpy(upload.prepare(bytes), segments.data(), bytes);
  segments_ = upload.send(bytes);
}

void LowRankProducts::add(Tensor x, const Norm* norm, std::span<const NumberedProduct> products,
                          Epilogue epilogue, Tensor target) const {
  static_assert(std::has_unique_object_representations_v<LowRankArgs>);  // graphs are found by their bytes
  LowRankArgs args{};
  int64_t blocks = 0;
  for (const auto& [number, out] : products) {
    args.part[args.n_parts++] = {out.data, int(number), int(out.cols)};
    if (epilogue != Epilogue::kSwiGlu || args.n_parts == 1) blocks += ceil_div(out.cols, kUpThreads);
  }
  args.x = norm != nullptr ? norm->x.data : x.data;
  args.norm = norm != nullptr ? norm->weight.data : nullptr;
  args.segments = reinterpret_cast<const Segment*>(uintptr_t(segments_));
  args.target = target.data;
  args.cols = int(x.cols);
  args.epilogue = epilogue;
  kernels_.low_rank_down({args.n_parts * kDownBlocks, n_segments_, kDownThreads}, args,
                         norm != nullptr ? norm->eps : 0.0f);
  kernels_.low_rank_up({blocks, n_segments_, kUpThreads}, args);
}

}  // namespace maestrale::cuda
