// SPDX-License-Identifier: Apache-2.0
// The threads of the CPU backend. run() executes one region on all of them, the caller included.
// Workers spin briefly between regions, since the next one usually comes within microseconds, and then
// sleep on a futex, so an idle engine uses no CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "base/integer.h"

namespace maestrale {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller. Throws Error{kOutOfMemory} when a thread cannot be started.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls body(worker) once on every thread, worker = 0 .. size() - 1 (0 is the caller), and returns when all
  // are done. `body` must not throw. One region at a time, always from the same thread.
  template <class Body>
  void run(Body&& body) {
    run_erased(
        [](void* context, int worker) { (*static_cast<std::remove_reference_t<Body>*>(context))(worker); },
        &body);
  }

  // Inside a region: waits until every thread has arrived.
  void barrier();

  // Inside a region: body(begin, end) over [0, n) in pieces of `grain`. Most of the range is dealt out as one
  // contiguous stretch a thread, which suits caches and prefetchers; the rest goes to whoever is free first,
  // which evens out a core that was taken away for a moment. Every thread of the region calls it with the
  // same arguments; `ticket` tells apart the loops of one region (0 .. kTickets - 1).
  template <class Body>
  void share(int ticket, int worker, int64_t n, int64_t grain, Body&& body) {
    Share share(*this, ticket, worker, n, grain);
    for (int64_t i = share.first(); i < share.pieces; i = share.after(i)) body(i * grain, share.end(i));
  }
  // As share(), but calls body(begin, end, next): the thread's next piece, which begins at `next`, is taken
  // before this one is done, so that its data can be fetched meanwhile. `next` is n after the last. For small
  // pieces.
  template <class Body>
  void share_ahead(int ticket, int worker, int64_t n, int64_t grain, Body&& body) {
    Share share(*this, ticket, worker, n, grain);
    for (int64_t i = share.first(), next; i < share.pieces; i = next) {
      next = share.after(i);
      body(i * grain, share.end(i), next < share.pieces ? next * grain : n);
    }
  }
  static constexpr int kTickets = 4;

  // A region of its own in which body(begin, end) is called over [0, n) in pieces of `grain`. What `body`
  // throws first is thrown here, after all pieces have been called.
  template <class Body>
  void share_throwing(int64_t n, int64_t grain, Body&& body) {
    std::mutex mutex;
    std::exception_ptr failure;
    run([&](int worker) {
      share(0, worker, n, grain, [&](int64_t begin, int64_t end) {
        try {
          body(begin, end);
        } catch (...) {
          const std::lock_guard lock(mutex);
          if (!failure) failure = std::current_exception();
        }
      });
    });
    if (failure) std::rethrow_exception(failure);
  }

 private:
  // Which pieces of a loop are whose.
  struct Share {
    Share(ThreadPool& pool, int ticket, int worker, int64_t n_, int64_t grain_)
        : n(n_),
          grain(grain_),
          pieces(ceil_div(n_, grain_)),
          dealt(pieces * 3 / 4 / pool.size_),
          own_begin(worker * dealt),
          own_end(own_begin + dealt),
          open(pool.size_ * dealt),
          taken(pool.tickets_[ticket].next) {}

    int64_t first() { return dealt > 0 ? own_begin : take(); }
    int64_t after(int64_t i) { return i + 1 < own_end ? i + 1 : take(); }
    int64_t end(int64_t i) const { return (i + 1) * grain < n ? (i + 1) * grain : n; }

    const int64_t n, grain, pieces;
    const int64_t dealt;               // pieces of each thread's own stretch
    const int64_t own_begin, own_end;  // this thread's
    const int64_t open;                // the first of those for whoever is free

   private:
    int64_t take() { return open + taken.fetch_add(1, std::memory_order_relaxed); }
    std::atomic<int64_t>& taken;
  };

  using Entry = void (*)(void* context, int worker);
  void run_erased(Entry entry, void* context);
  void work(int worker);
  // Returns once `word` differs from `old`, spinning for a while and then sleeping.
  void await_change(const std::atomic<uint32_t>& word, uint32_t old) const;

  const int size_;
  int spin_ = 0;  // iterations of spinning before sleeping
  Entry entry_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  struct alignas(64) Ticket {
    std::atomic<int64_t> next{0};
  };
  Ticket tickets_[kTickets];
  alignas(64) std::atomic<uint32_t> epoch_{0};       // counts regions
  alignas(64) std::atomic<uint32_t> finished_{0};    // workers done with the region
  alignas(64) std::atomic<int> arrived_{0};          // at the barrier
  alignas(64) std::atomic<uint32_t> generation_{0};  // counts barriers
  std::vector<std::thread> threads_;
};

// CPUs this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.
int available_cpus();

}  // namespace maestrale
