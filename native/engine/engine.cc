// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <utility>

namespace maestrale {
namespace {

// What went wrong, as the engine reports it. To be called in a catch block.
Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, "no memory for the request's own data");
  } catch (const std::exception& error) {
    return Error(ErrorCode::kInternal, error.what());
  }
}

// Generated text that follows plain text continues it; an answer, and what follows a control token, begins
// anew, and the vocabulary's leading space is no part of it.
StreamDecoder decoder_after(const Vocab& vocab, std::span<const int32_t> prompt, bool answer) {
  const int32_t last = prompt.back();
  const bool anew = answer || (last < vocab.size() && vocab.types[size_t(last)] == PieceType::kControl);
  return StreamDecoder(vocab, {.strip_leading_space = anew});
}

}  // namespace

Engine::Engine(std::unique_ptr<Model> model, std::shared_ptr<const Tokenizer> tokenizer,
               const EngineConfig& config, EventSink sink)
    : config_(config),
      model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      sink_(std::move(sink)),
      pool_(config.max_pages, config.max_cached_pages),
      scheduler_(config.max_batch_tokens) {
  const ModelConfig& m = model_->config();
  model_->prepare(config.max_batch_tokens, {m.n_layers, m.n_kv_heads, m.head_dim, config.kv_type,
                                            config.max_pages, config.sliding_window, config.context_length});
  for (const Stage& stage : model_->stages()) stage.backend->set_interrupt(&interrupt_);
  thread_ = std::thread([this] { run(); });
  try {
    reader_ = std::thread([this] { read_prompts(); });
  } catch (...) {
    stop();
    thread_.join();
    throw;
  }
}

Engine::~Engine() {
  stop();
  thread_.join();
  reader_.join();
  std::unique_lock lock(mutex_);
  visit_ended_.wait(lock, [&] { return visits_ == 0; });
}

Engine::Visit::Visit(Engine& engine) : engine_(engine) {
  const std::lock_guard lock(engine_.mutex_);
  ++engine_.visits_;
}

Engine::Visit::~Visit() {
  const std::lock_guard lock(engine_.mutex_);
  --engine_.visits_;
  engine_.visit_ended_.notify_all();
}

AdapterFacts Engine::load_adapter(const std::string& path, const std::string& name, float scale,
                                  const OpenBase& open_base) {
  adapters_.check_free(name);
  LoadCallbacks callbacks;
  callbacks.cancelled = &stop_flag_;
  try {
    const AdapterFile file = read_adapter_file(path, model_->config());
    std::unique_ptr<const Adapter> adapter =
        maestrale::load_adapter(file, scale, *model_, open_base, callbacks);
    return adapters_.add(name, path, scale, std::move(adapter));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kAborted) throw Error(ErrorCode::kDisposed, "the model has been disposed");
    throw;
  }
}

// A device may still be at work on what a cancelled request has left in the running step, so the adapter goes
// between steps, on the thread that gives the device its work.
void Engine::unload_adapter(const std::string& name) {
  std::unique_ptr<const Adapter> adapter = adapters_.remove(name);
  std::unique_lock lock(mutex_);
  unloaded_.push_back(std::move(adapter));
  const uint64_t ticket = ++unloads_;
  wake_engine_.notify_one();
  adapters_freed_.wait(lock, [&] { return stopping_ || freed_ >= ticket; });
}

void Engine::submit(Request request) {
  const auto sequence = std::make_shared<Sequence>(std::move(request), StreamDecoder(tokenizer_->vocab()),
                                                   model_->config().vocab_size);
  if (!sequence->request.adapter.empty()) sequence->adapter = adapters_.use(sequence->request.adapter);
  const bool is_text = !std::holds_alternative<std::vector<int32_t>>(sequence->request.prompt);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) throw Error(ErrorCode::kDisposed, "the model has been disposed");
    const size_t most = size_t(config_.max_sequences) + size_t(config_.max_queue);
    if (sequences_.size() >= most)
      throw Error(ErrorCode::kQueueFull, std::to_string(config_.max_sequences) + " requests run and " +
                                             std::to_string(config_.max_queue) + " wait; no more may wait");
    if (!sequences_.try_emplace(sequence->request.id, sequence).second)
      throw Error(ErrorCode::kInvalidArg,
                  "request id " + std::to_string(sequence->request.id) + " is in use");
    if (is_text)
      unread_.push_back(sequence);
    else
      incoming_.push_back(sequence);
    counters_.outstanding = int64_t(sequences_.size());
  }
  (is_text ? wake_reader_ : wake_engine_).notify_one();
}

Engine::SequencePtr Engine::find_locked(uint64_t id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second;
}

void Engine::cancel(uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    const SequencePtr sequence = find_locked(id);
    if (!sequence || sequence->cancelled.exchange(true)) return;
    poked_ = true;
    if (sequence->in_step) {
      sequence->in_step = false;
      if (--live_in_step_ == 0) interrupt_ = true;  // nobody wants the running step any more
    }
  }
  wake_engine_.notify_one();
}

void Engine::set_paused(uint64_t id, bool paused) {
  {
    const std::lock_guard lock(mutex_);
    const SequencePtr sequence = find_locked(id);
    if (!sequence) return;
    sequence->paused = paused;
    poked_ = true;
  }
  wake_engine_.notify_one();
}

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    stop_flag_ = true;
    interrupt_ = true;
  }
  wake_engine_.notify_one();
  wake_reader_.notify_one();
  adapters_freed_.notify_all();
  adapters_.stop();
}

EngineStats Engine::stats() const {
  EngineStats s;
  s.running = counters_.running;
  s.queued = std::max<int64_t>(0, counters_.outstanding - s.running);
  s.pages_total = config_.max_pages;
  s.pages_used = counters_.pages_used;
  s.pages_cached = counters_.pages_cached;
  s.prompt_tokens = counters_.prompt_tokens;
  s.cached_tokens = counters_.cached_tokens;
  s.completion_tokens = counters_.completion_tokens;
  s.steps = counters_.steps;
  s.compute_ms = double(counters_.compute_ns) / 1e6;
  return s;
}

// ---- the thread that reads prompts ---------------------------------------------------------------

void Engine::read_prompts() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_reader_.wait(lock, [&] { return stopping_ || !unread_.empty(); });
    if (stopping_) return;
    const SequencePtr sequence = std::move(unread_.front());
    unread_.pop_front();
    lock.unlock();
    try {
      read_prompt(*sequence);
      lock.lock();
      incoming_.push_back(sequence);
      lock.unlock();
      wake_engine_.notify_one();
    } catch (...) {
      fail(*sequence, current_error());
    }
    lock.lock();
  }
}

// Fills in sequence.tokens, which nobody else reads before the sequence is in incoming_.
void Engine::read_prompt(Sequence& sequence) const {
  const Prompt& prompt = sequence.request.prompt;
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    sequence.tokens = tokenizer_->encode(*text, {.add_bos = tokenizer_->vocab().add_bos});
    return;
  }
  std::vector<PromptSegment> segments;
  for (const Segment& segment : std::get<std::vector<Segment>>(prompt)) {
    if (const auto* text = std::get_if<std::string>(&segment))
      segments.emplace_back(std::string_view(*text));
    else
      segments.emplace_back(std::get<int32_t>(segment));
  }
  sequence.tokens = tokenizer_->encode_segments(segments);
}

// ---- the engine's thread -------------------------------------------------------------------------

void Engine::run() {
  for (bool idle = true; wait_for_work(idle);) {
    try {
      drop_aborted();
      admit();
      idle = !step();
    } catch (...) {
      // Not the fault of one request: whatever is in the batch cannot go on.
      const Error error = current_error();
      for (const SequencePtr& sequence : running_)
        if (!sequence->finished) fail(*sequence, error);
      idle = false;
    }
    std::erase_if(running_, [](const SequencePtr& sequence) { return sequence->finished; });
    flush_events();
    publish_stats();
  }
  std::vector<SequencePtr> rest;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& entry : sequences_) rest.push_back(entry.second);
  }
  const Error disposed(ErrorCode::kDisposed, "the model has been disposed");
  for (const SequencePtr& sequence : rest) fail(*sequence, disposed);
  queue_.clear();
  running_.clear();
  flush_events();
  publish_stats();
}

// Takes over new requests. Sleeps while there is nothing to do; false: the engine is to end.
bool Engine::wait_for_work(bool idle) {
  std::unique_lock lock(mutex_);
  if (idle) {
    Clock::time_point deadline = Clock::time_point::max();
    for (const SequencePtr& sequence : queue_) deadline = std::min(deadline, sequence->deadline());
    for (const SequencePtr& sequence : running_) deadline = std::min(deadline, sequence->deadline());
    const auto ready = [&] { return stopping_ || poked_ || !incoming_.empty() || !unloaded_.empty(); };
    if (deadline == Clock::time_point::max())
      wake_engine_.wait(lock, ready);
    else
      wake_engine_.wait_until(lock, deadline, ready);
  }
  if (!unloaded_.empty()) free_adapters(lock);
  poked_ = false;
  for (SequencePtr& sequence : incoming_) queue_.push_back(std::move(sequence));
  incoming_.clear();
  return !stopping_;
}

// Under mutex_, which is let go meanwhile.
void Engine::free_adapters(std::unique_lock<std::mutex>& lock) {
  std::vector<std::unique_ptr<const Adapter>> adapters;
  adapters.swap(unloaded_);
  lock.unlock();
  const size_t n = adapters.size();
  adapters.clear();
  lock.lock();
  freed_ += n;
  adapters_freed_.notify_all();
}

// Ends what was cancelled or has run out of time, wherever it waits.
void Engine::drop_aborted() {
  std::vector<SequencePtr> unread;
  {
    const std::lock_guard lock(mutex_);
    for (const SequencePtr& sequence : unread_)
      if (sequence->cancelled) unread.push_back(sequence);
    std::erase_if(unread_, [](const SequencePtr& sequence) { return sequence->cancelled.load(); });
  }
  for (const SequencePtr& sequence : unread) finish(*sequence, FinishReason::kAbort);
  const Clock::time_point now = Clock::now();
  for (const SequencePtr& sequence : queue_)
    if (sequence->aborted(now)) finish(*sequence, FinishReason::kAbort);
  std::erase_if(queue_, [](const SequencePtr& sequence) { return sequence->finished; });
  for (const SequencePtr& sequence : running_)
    if (sequence->aborted(now)) finish(*sequence, FinishReason::kAbort);
  std::erase_if(running_, [](const SequencePtr& sequence) { return sequence->finished; });
}

// First come, first served: the head of the queue waits until there is room for the longest it can get,
// so a running sequence never lacks a page.
void Engine::admit() {
  while (!queue_.empty() && running_.size() < size_t(config_.max_sequences)) {
    const SequencePtr sequence = queue_.front();
    try {
      if (!try_admit(sequence)) return;
    } catch (...) {
      fail(*sequence, current_error());
    }
    queue_.pop_front();
  }
}

// False: not now. Throws when it can never be.
bool Engine::try_admit(const SequencePtr& pointer) {
  Sequence& sequence = *pointer;
  const Request& request = sequence.request;
  if (sequence.limit == 0) {
    std::vector<int32_t> prompt = std::move(sequence.tokens);
    if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt)) prompt = *ids;
    const int64_t n = int64_t(prompt.size());
    if (n == 0) throw Error(ErrorCode::kInvalidArg, "the prompt is empty: it has no tokens");
    if (n > config_.context_length)
      throw Error(ErrorCode::kContextLength, "the prompt has " + std::to_string(n) +
                                                 " tokens, contextLength is " +
                                                 std::to_string(config_.context_length));
    const int32_t vocab_size = model_->config().vocab_size;
    for (const int32_t token : prompt)
      if (token < 0 || token >= vocab_size)
        throw Error(ErrorCode::kInvalidArg, "token " + std::to_string(token) +
                                                " is not in the vocabulary of " + std::to_string(vocab_size));
    const StreamDecoder decoder = decoder_after(tokenizer_->vocab(), prompt, request.answer);
    sequence.begin_prompt(std::move(prompt), decoder);
    const int64_t room = sequence.generates() ? std::max<int64_t>(request.max_new_tokens, 0) : 0;
    sequence.limit = n + std::min(room, config_.context_length - n);
    // The last token is never computed, but a prompt always is.
    sequence.reserved_pages =
        pages_needed(std::max(n, sequence.limit - 1), config_.sliding_window, config_.max_batch_tokens);
    if (sequence.reserved_pages > config_.max_pages)
      throw Error(ErrorCode::kOutOfMemory,
                  "a sequence of " + std::to_string(sequence.limit) + " tokens needs " +
                      std::to_string(sequence.reserved_pages) + " KV pages, memory allows " +
                      std::to_string(config_.max_pages) + "; lower maxNewTokens or shorten the prompt");
  }
  if (sequence.generates() && sequence.limit == sequence.n_prompt) {
    finish(sequence, FinishReason::kLength);  // the prompt fills the context
    return true;
  }
  if (reserved_pages_ + sequence.reserved_pages > config_.max_pages) return false;
  sequence.pages.emplace(pool_, config_.sliding_window, sequence.adapter.id());
  reserved_pages_ += sequence.reserved_pages;
  running_.push_back(pointer);
  sequence.admitted();
  if (sequence.generates()) sequence.cached = sequence.computed = sequence.pages->resume(sequence.tokens);
  counters_.cached_tokens += sequence.cached;
  return true;
}

// ---- ends ----------------------------------------------------------------------------------------

void Engine::finish(Sequence& sequence, FinishReason reason) {
  Event event;
  sequence.conclude(reason, event);
  end(sequence, std::move(event));
}

void Engine::fail(Sequence& sequence, const Error& error) {
  Event event;
  event.error = error;
  end(sequence, std::move(event));
}

// On the engine's thread, or on the reader's for a request that never reached the engine.
void Engine::end(Sequence& sequence, Event event) {
  event.id = sequence.request.id;
  {
    const std::lock_guard lock(mutex_);
    if (sequences_.erase(event.id) == 0) return;
    counters_.outstanding = int64_t(sequences_.size());
  }
  sequence.adapter.reset();
  if (std::this_thread::get_id() == reader_.get_id()) {
    std::vector<Event> events;
    events.push_back(std::move(event));
    sink_(std::move(events));
    return;
  }
  sequence.finished = true;
  if (sequence.pages) {
    sequence.pages.reset();
    reserved_pages_ -= sequence.reserved_pages;
  }
  events_.push_back(std::move(event));
}

void Engine::flush_events() {
  if (events_.empty()) return;
  publish_stats();
  sink_(std::move(events_));
  events_.clear();
}

void Engine::publish_stats() {
  const PagePool::Stats pages = pool_.stats();
  counters_.pages_used = pages.used;
  counters_.pages_cached = pages.cached;
  counters_.running =
      std::count_if(running_.begin(), running_.end(), [](const SequencePtr& s) { return !s->finished; });
}

}  // namespace maestrale
