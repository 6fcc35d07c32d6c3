// SPDX-License-Identifier: Apache-2.0
// One step of the engine: rows of all running sequences go through the model together, and what each
// sequence is owed is drawn from its logits.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/engine.h"
#include "engine/score.h"

namespace maestrale {

// False when there was nothing to compute.
bool Engine::step() {
  std::vector<Scheduler::Candidate> candidates;
  for (const SequencePtr& s : running_)
    candidates.push_back({s->rows_left(), s->has_generated(), s->paused.load(std::memory_order_relaxed)});
  const std::vector<int32_t> rows = scheduler_.plan(candidates);
  build_step(rows);
  if (step_.sequences.empty()) return false;

  const Clock::time_point begin = Clock::now();
  compute_step();
  scheduler_.observe(step_.prefill_rows,
                     std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  ++counters_.steps;
  return true;
}

void Engine::build_step(const std::vector<int32_t>& rows) {
  step_ = {};
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == 0) continue;
    const SequencePtr& sequence = running_[i];
    const int64_t first = sequence->computed, end = first + rows[i];
    sequence->pages->extend(end);
    const int32_t first_row = step_.batch.n_rows();
    step_.batch.tokens.insert(step_.batch.tokens.end(), sequence->tokens.begin() + first,
                              sequence->tokens.begin() + end);
    step_.batch.sequences.push_back(
        {first_row, rows[i], first, sequence->pages->first_page(), sequence->pages->pages()});
    step_.sequences.push_back(sequence);
    if (!sequence->has_generated()) step_.prefill_rows += rows[i];
    const int32_t last_row = first_row + rows[i] - 1;
    if (!sequence->generates()) {
      for (int32_t row = first_row; row <= last_row; ++row) step_.output_rows.push_back(row);
    } else if (end == int64_t(sequence->tokens.size())) {
      step_.output_rows.push_back(last_row);
    }
  }
}

void Engine::compute_step() {
  {
    const std::lock_guard lock(mutex_);
    live_in_step_ = 0;
    for (const SequencePtr& sequence : step_.sequences)
      if ((sequence->in_step = !sequence->cancelled)) ++live_in_step_;
    interrupt_ = stopping_ || live_in_step_ == 0;
  }
  const auto leave = [this](size_t index) { return leaves_step(index); };
  // After this no cancellation reaches the step: whoever is still in it has complete results.
  const auto close = [this] {
    const std::lock_guard lock(mutex_);
    for (const SequencePtr& sequence : step_.sequences) sequence->in_step = false;
    live_in_step_ = 0;
    if (!stopping_) interrupt_ = false;
  };
  std::span<const float> logits;
  try {
    logits = model_->forward(step_.batch, step_.output_rows, leave);
  } catch (...) {
    close();
    throw;
  }
  close();
  if (!stop_flag_) finish_step(logits);
}

// Asked by the model between layers. What is cancelled gives its pages back here and now.
bool Engine::leaves_step(size_t index) {
  Sequence& sequence = *step_.sequences[index];
  if (stop_flag_ || sequence.finished) return true;
  if (!sequence.aborted(Clock::now())) return false;
  finish(sequence, FinishReason::kAbort);
  flush_events();
  return true;
}

void Engine::finish_step(std::span<const float> logits) {
  const size_t vocab_size = size_t(model_->config().vocab_size);
  const Clock::time_point now = Clock::now();
  size_t output = 0;
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    Sequence& sequence = *step_.sequences[i];
    const BatchSequence& part = step_.batch.sequences[i];
    size_t n_outputs = 0;
    while (output + n_outputs < step_.output_rows.size() &&
           step_.output_rows[output + n_outputs] < part.first_row + part.n_rows)
      ++n_outputs;
    const size_t first = output * vocab_size;
    output += n_outputs;
    if (sequence.finished) continue;
    try {
      // Cancelled after the last layer: its results may have been cut short.
      if (sequence.aborted(now)) {
        finish(sequence, FinishReason::kAbort);
        continue;
      }
      sequence.computed += part.n_rows;
      if (!sequence.has_generated()) counters_.prompt_tokens += part.n_rows;
      sequence.pages->commit(std::span(sequence.tokens).first(size_t(sequence.computed)));
      if (n_outputs > 0)
        use_logits(sequence, part.first_position, part.n_rows, logits.subspan(first, n_outputs * vocab_size));
    } catch (const Error& error) {
      if (!sequence.finished) fail(sequence, error);
    }
  }
}

void Engine::use_logits(Sequence& sequence, int64_t first, int32_t n_rows, std::span<const float> logits) {
  if (!sequence.generates()) {
    collect_values(sequence, first, n_rows, logits);
    return;
  }
  const Vocab& vocab = tokenizer_->vocab();
  Event event;
  event.id = sequence.request.id;
  const auto reason = sequence.advance(logits, vocab, event);
  counters_.completion_tokens += int64_t(event.tokens.size());
  if (reason) {
    sequence.conclude(*reason, event);
    end(sequence, std::move(event));
  } else {
    events_.push_back(std::move(event));
  }
}

// Logits of the positions [first, first + n_rows) of a request for values.
void Engine::collect_values(Sequence& sequence, int64_t first, int32_t n_rows,
                            std::span<const float> logits) {
  const size_t vocab_size = size_t(model_->config().vocab_size);
  const std::span<float> values = sequence.request.values;
  if (sequence.request.kind == Request::Kind::kLogits) {
    std::copy(logits.begin(), logits.end(), values.begin() + first * int64_t(vocab_size));
  } else {
    for (int64_t row = 0; row < n_rows && first + row + 1 < sequence.n_prompt; ++row)
      values[size_t(first + row)] = float(log_probability(
          logits.subspan(size_t(row) * vocab_size, vocab_size), sequence.tokens[size_t(first + row + 1)]));
  }
  if (sequence.computed < sequence.n_prompt) return;
  Event event;
  event.values_ready = true;
  end(sequence, std::move(event));
}

}  // namespace maestrale
