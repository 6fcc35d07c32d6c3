// SPDX-License-Identifier: Apache-2.0
#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/integer.h"

namespace maestrale {
namespace {

// Rows of a sequence that one task takes: with four query heads to a KV head a multiple of attend()'s block
// of 6 queries, and enough of them to read a page of the cache from memory seldom.
constexpr int32_t kTaskRows = 24;
// Positions are attended to in chunks of 1024 with absolute borders, each from a fresh state, and merged in
// ascending order: so chunks could run on different threads without changing a bit.
constexpr int64_t kChunkPositions = 1024;
constexpr int64_t kChunkPages = kChunkPositions / kPagePositions;

}  // namespace

struct CpuAttention::Task {
  const BatchSequence* sequence;
  int32_t kv_head;
  int32_t first_row;  // within the sequence
  int32_t n_rows;

  // The first position that row `row` of the task sees.
  int64_t first_visible(int32_t row, int64_t window) const {
    const int64_t end = sequence->first_position + first_row + row + 1;
    return window > 0 ? std::max(int64_t(0), end - window) : 0;
  }
  KvPageView page(const CpuKvCache& cache, int32_t layer, int64_t number) const {
    return cache.view(sequence->pages[size_t(number - sequence->first_page)], layer, kv_head);
  }
};

// Carved out of scratch_: everything for up to kTaskRows * group queries.
struct CpuAttention::Thread {
  Thread(std::byte* memory, int32_t queries, int32_t head_dim) {
    const auto take = [&memory]<class T>(T*& field, int64_t count) {
      field = reinterpret_cast<T*>(memory);
      memory += round_up(uint64_t(count) * sizeof(T), 64);
    };
    take(q, int64_t(queries) * head_dim);
    take(q_scale, queries);
    take(total_out, int64_t(queries) * head_dim);
    take(chunk_out, int64_t(queries) * head_dim);
    take(total, queries);
    take(chunk, queries);
    take(first, queries);
    take(last, queries);
    take(pages, kChunkPages);
    end = memory;
  }
  static uint64_t bytes(int32_t queries, int32_t head_dim) {
    return uint64_t(Thread(nullptr, queries, head_dim).end - static_cast<std::byte*>(nullptr));
  }

  int16_t* q;
  float *q_scale, *total_out, *chunk_out;
  AttentionState *total, *chunk;
  int64_t *first, *last;
  KvPageView* pages;
  std::byte* end;
};

void CpuAttention::run(const CpuKvCache& cache, const Batch& batch, int32_t layer, Tensor q, Tensor out) {
  const KvConfig& kv = cache.config();
  const int32_t group = int32_t(q.cols) / kv.head_dim / kv.n_kv_heads;
  const uint64_t thread_bytes = Thread::bytes(kTaskRows * group, kv.head_dim);
  if (scratch_.bytes() < thread_bytes * uint64_t(pool_.size()))
    scratch_ = Buffer(thread_bytes * uint64_t(pool_.size()), "attention");

  std::vector<Task> tasks;
  for (const BatchSequence& sequence : batch.sequences)
    for (int32_t row = 0; row < sequence.n_rows; row += kTaskRows)
      for (int32_t head = 0; head < kv.n_kv_heads; ++head)
        tasks.push_back({&sequence, head, row, std::min(kTaskRows, sequence.n_rows - row)});

  pool_.run([&](int worker) {
    Thread thread(scratch_.data() + uint64_t(worker) * thread_bytes, kTaskRows * group, kv.head_dim);
    const int64_t n = int64_t(tasks.size());
    pool_.share_ahead(0, worker, n, 1, [&](int64_t begin, int64_t, int64_t next) {
      if (interrupt_ == nullptr || !interrupt_->load(std::memory_order_relaxed))
        attend(cache, tasks[size_t(begin)], next < n ? &tasks[size_t(next)] : nullptr, layer, q, out, thread);
    });
  });
}

void CpuAttention::attend(const CpuKvCache& cache, const Task& task, const Task* next, int32_t layer,
                          Tensor q, Tensor out, Thread& thread) {
  const KvConfig& kv = cache.config();
  const BatchSequence& sequence = *task.sequence;
  const int32_t head_dim = kv.head_dim, group = int32_t(q.cols) / head_dim / kv.n_kv_heads;
  const int32_t n_queries = task.n_rows * group;
  const float factor = float(1.44269504088896341 / std::sqrt(double(head_dim)));  // softmax in powers of two

  for (int32_t i = 0; i < n_queries; ++i) {
    const int32_t row = task.first_row + i / group;
    const int64_t head = int64_t(task.kv_head) * group + i % group;
    const float* query = q.data + (sequence.first_row + row) * q.cols + head * head_dim;
    thread.q_scale[i] = factor * kernels_.vector_to_i16(query, head_dim, thread.q + i * head_dim);
    const int64_t position = sequence.first_position + row;
    thread.last[i] = position + 1;
    thread.first[i] = task.first_visible(i / group, kv.sliding_window);
    thread.total[i] = {-std::numeric_limits<float>::infinity(), 0.0f};
  }
  std::fill_n(thread.total_out, n_queries * head_dim, 0.0f);

  const int64_t first_page = thread.first[0] / kPagePositions;
  const int64_t end_page = (thread.last[n_queries - 1] - 1) / kPagePositions + 1;
  for (int64_t page = first_page; page < end_page;) {
    const int64_t chunk_end = std::min(end_page, (page / kChunkPages + 1) * kChunkPages);
    for (int64_t p = page; p < chunk_end; ++p) thread.pages[p - page] = task.page(cache, layer, p);
    KvPageView after{};
    if (chunk_end < end_page)
      after = task.page(cache, layer, chunk_end);
    else if (next != nullptr)
      after = next->page(cache, layer, next->first_visible(0, kv.sliding_window) / kPagePositions);
    std::fill_n(thread.chunk, n_queries, AttentionState{-std::numeric_limits<float>::infinity(), 0.0f});
    std::fill_n(thread.chunk_out, n_queries * head_dim, 0.0f);
    AttentionJob job{};
    job.head_dim = head_dim;
    job.n_queries = n_queries;
    job.q = thread.q;
    job.q_scale = thread.q_scale;
    job.first = thread.first;
    job.last = thread.last;
    job.pages = thread.pages;
    job.after = after.k != nullptr ? &after : nullptr;
    job.base = page * kPagePositions;
    job.n_pages = int32_t(chunk_end - page);
    job.state = thread.chunk;
    job.out = thread.chunk_out;
    (kv.type == KvType::kQ8_0 ? kernels_.attend_i8 : kernels_.attend_i16)(job);
    kernels_.merge_attention(thread.total, thread.total_out, thread.chunk, thread.chunk_out, n_queries,
                             head_dim);
    page = chunk_end;
  }

  for (int32_t i = 0; i < n_queries; ++i) {
    const int64_t head = int64_t(task.kv_head) * group + i % group;
    kernels_.scale(thread.total_out + i * head_dim, 1.0f / thread.total[i].sum, head_dim,
                   out.data + (sequence.first_row + task.first_row + i / group) * out.cols + head * head_dim);
  }
}

}  // namespace maestrale
