// SPDX-License-Identifier: Apache-2.0
// Runs the requests of one model on a thread of its own, all of them in one batch at every step.
//
// Threads: submit(), cancel(), pause(), resume(), stats() and stop() may be called from any thread and
// return at once; load_adapter() and unload_adapter() take their time, on a thread of the caller's that holds
// a Visit. Prompts are tokenised on a second thread, so that a long text delays no step.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/adapter_table.h"
#include "engine/event.h"
#include "engine/page_pool.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "model/adapter_loader.h"
#include "model/model.h"
#include "tokenizer/sentencepiece.h"

namespace maestrale {

struct EngineConfig {
  int64_t context_length = 0;  // longest timeline
  int64_t sliding_window = 0;  // 0: full attention
  int32_t max_sequences = 16;  // in the batch at a time
  int32_t max_batch_tokens = 512;
  int32_t max_queue = 1024;      // requests that may wait beyond max_sequences
  int64_t max_pages = 0;         // of the KV cache
  int64_t max_cached_pages = 0;  // of them, kept for the prefixes of later requests
  KvType kv_type = KvType::kF16;
};

// Counters since the engine began, and its state after the latest step.
struct EngineStats {
  int64_t queued = 0, running = 0;
  int64_t pages_total = 0, pages_used = 0, pages_cached = 0;
  int64_t prompt_tokens = 0;  // computed, cached ones excluded
  int64_t cached_tokens = 0, completion_tokens = 0, steps = 0;
  double compute_ms = 0.0;  // spent in Model::forward
};

class Engine {
 public:
  // Prepares the model's memory and starts. `tokenizer` belongs to this model.
  Engine(std::unique_ptr<Model> model, std::shared_ptr<const Tokenizer> tokenizer, const EngineConfig& config,
         EventSink sink);
  ~Engine();  // stop() and waits
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Throws Error{kQueueFull, kDisposed, kInvalidArg, kAdapter}; everything else is reported as an event.
  void submit(Request request);
  // A request that is unknown or has ended is ignored: it may have ended a moment ago.
  void cancel(uint64_t id);
  void pause(uint64_t id) { set_paused(id, true); }
  void resume(uint64_t id) { set_paused(id, false); }

  // Begins to end the engine: the running step is cut short, every request that has not ended fails with
  // kDisposed. Idempotent.
  void stop();

  // Makes an adapter available to requests under a name. Reads its file and packs it beside the running
  // steps. Throws Error{kAdapter, kInvalidArg, kOutOfMemory, kDisposed}.
  AdapterFacts load_adapter(const std::string& path, const std::string& name, float scale,
                            const OpenBase& open_base);
  // Returns when the requests that use it have ended and its memory is free; new ones are refused meanwhile.
  // Throws Error{kAdapter, kDisposed}.
  void unload_adapter(const std::string& name);
  std::vector<AdapterFacts> adapters() const { return adapters_.list(); }

  // The destruction of the engine waits for the end of visits, after it has stopped.
  class Visit {
   public:
    explicit Visit(Engine& engine);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;
    Engine& engine() const { return engine_; }

   private:
    Engine& engine_;
  };

  EngineStats stats() const;
  std::string device() const { return std::string(model_->backend().device()); }
  std::string isa() const { return std::string(model_->backend().isa()); }
  int32_t threads() const { return model_->stages().front().backend->threads(); }
  const EngineConfig& config() const { return config_; }

 private:
  using SequencePtr = std::shared_ptr<Sequence>;

  // On the thread that reads prompts.
  void read_prompts();
  void read_prompt(Sequence& sequence) const;

  // On the engine's thread.
  void run();
  bool wait_for_work(bool idle);
  void free_adapters(std::unique_lock<std::mutex>& lock);
  void drop_aborted();
  void admit();
  bool try_admit(const SequencePtr& sequence);
  bool step();
  void build_step(const std::vector<int32_t>& rows);
  void compute_step();
  bool leaves_step(size_t index);
  void finish_step(std::span<const LogitRow> logits);
  void draw_tokens(Sequence& sequence, std::span<const LogitRow> logits, int64_t first_output);
  void draw_token(Sequence& sequence, const LogitRow& logits, int64_t output);
  void collect_values(Sequence& sequence, int64_t first, int32_t n_rows, std::span<const LogitRow> logits);
  void finish(Sequence& sequence, FinishReason reason);
  void fail(Sequence& sequence, const Error& error);
  void end(Sequence& sequence, Event event);
  void flush_events();
  void publish_stats();

  void set_paused(uint64_t id, bool paused);
  SequencePtr find_locked(uint64_t id) const;

  const EngineConfig config_;
  std::unique_ptr<Model> model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  EventSink sink_;

  AdapterTable adapters_;  // outlives the sequences

  // The engine's thread.
  PagePool pool_;
  Scheduler scheduler_;
  std::deque<SequencePtr> queue_;     // waiting for a place, oldest first
  std::vector<SequencePtr> running_;  // in order of admission
  int64_t reserved_pages_ = 0;        // by running_
  std::vector<Event> events_;
  struct Step {
    Batch batch;
    std::vector<SequencePtr> sequences;  // as in batch.sequences
    std::vector<int32_t> output_rows;
    std::vector<RowRequest> requests;  // of each output row
    int32_t prefill_rows = 0;
  } step_;

  // Any thread, under mutex_.
  mutable std::mutex mutex_;
  std::condition_variable wake_engine_, wake_reader_;
  std::unordered_map<uint64_t, SequencePtr> sequences_;   // those that have not ended
  std::deque<SequencePtr> unread_;                        // prompts to be tokenised
  std::vector<SequencePtr> incoming_;                     // for queue_
  bool poked_ = false;                                    // a flag of some sequence has changed
  std::vector<std::unique_ptr<const Adapter>> unloaded_;  // to be freed between steps
  uint64_t unloads_ = 0, freed_ = 0;                      // adapters so far
  std::condition_variable adapters_freed_;
  bool stopping_ = false;
  int32_t visits_ = 0;
  std::condition_variable visit_ended_;
  int32_t live_in_step_ = 0;  // sequences of the running step that have not been cancelled

  std::atomic<bool> interrupt_{false};  // watched by the kernels, see Backend::set_interrupt
  std::atomic<bool> stop_flag_{false};  // stopping_, for readers without the mutex

  struct {
    std::atomic<int64_t> outstanding{0}, running{0}, pages_used{0}, pages_cached{0}, prompt_tokens{0},
        cached_tokens{0}, completion_tokens{0}, steps{0}, compute_ns{0};
  } counters_;

  std::thread reader_, thread_;  // last: they use everything above
};

}  // namespace maestrale
