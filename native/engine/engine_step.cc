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
  for (const SequencePtr& s : running_) {
    const bool paused = s->paused.load(std::memory_order_relaxed);
    if (s->has_generated() && !paused) s->guess();
    candidates.push_back({s->rows_left(), s->has_generated(), paused, int32_t(s->guesses.size())});
  }
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
  // Sequences with the same adapter become neighbours, whose rows are multiplied with it together.
  std::vector<size_t> order;
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i] > 0) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return running_[a]->adapter.id() < running_[b]->adapter.id(); });
  for (const size_t i : order) {
    const SequencePtr& sequence = running_[i];
    // Rows beyond the known tokens are for guesses.
    const int64_t first = sequence->computed;
    const int64_t end = std::min(first + rows[i], int64_t(sequence->tokens.size()));
    sequence->guesses.resize(size_t(first + rows[i] - end));
    sequence->pages->extend(first + rows[i]);
    const int32_t first_row = step_.batch.n_rows();
    step_.batch.tokens.insert(step_.batch.tokens.end(), sequence->tokens.begin() + first,
                              sequence->tokens.begin() + end);
    step_.batch.tokens.insert(step_.batch.tokens.end(), sequence->guesses.begin(), sequence->guesses.end());
    step_.batch.sequences.push_back({first_row, rows[i], first, sequence->pages->first_page(),
                                     sequence->pages->pages(), sequence->adapter.get()});
    step_.sequences.push_back(sequence);
    if (!sequence->has_generated()) step_.prefill_rows += rows[i];
    const int32_t last_row = first_row + rows[i] - 1;
    int32_t output = last_row + 1;  // the first row whose logits are needed
    if (!sequence->generates())
      output = first_row;
    else if (end == int64_t(sequence->tokens.size()))
      output = last_row - int32_t(sequence->guesses.size());
    for (size_t row = 0; output <= last_row; ++output, ++row) {
      step_.output_rows.push_back(output);
      step_.requests.push_back(sequence->request_row(row, model_->backend().draws()));
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
  std::vector<LogitRow> logits;
  try {
    const Clock::time_point begin = Clock::now();
    logits = model_->forward(step_.batch, step_.output_rows, step_.requests, leave);
    counters_.compute_ns += std::chrono::nanoseconds(Clock::now() - begin).count();
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

void Engine::finish_step(std::span<const LogitRow> logits) {
  const Clock::time_point now = Clock::now();
  size_t output = 0;
  for (size_t i = 0; i < step_.sequences.size(); ++i) {
    Sequence& sequence = *step_.sequences[i];
    const BatchSequence& part = step_.batch.sequences[i];
    size_t n_outputs = 0;
    while (output + n_outputs < step_.output_rows.size() &&
           step_.output_rows[output + n_outputs] < part.first_row + part.n_rows)
      ++n_outputs;
    const size_t first = output;
    output += n_outputs;
    if (sequence.finished) continue;
    try {
      // Cancelled after the last layer: its results may have been cut short.
      if (sequence.aborted(now)) {
        finish(sequence, FinishReason::kAbort);
        continue;
      }
      sequence.computed += part.n_rows - int64_t(sequence.guesses.size());
      if (!sequence.has_generated()) counters_.prompt_tokens += part.n_rows;
      sequence.pages->commit(std::span(sequence.tokens).first(size_t(sequence.computed)));
      if (n_outputs == 0) continue;
      const std::span<const LogitRow> rows = logits.subspan(first, n_outputs);
      if (sequence.generates())
        draw_tokens(sequence, rows, int64_t(first));
      else
        collect_values(sequence, part.first_position, part.n_rows, rows);
    } catch (const Error& error) {
      if (!sequence.finished) fail(sequence, error);
    }
  }
}

// Logits of the latest token and of the guesses behind it. Row by row, as if each were a step of its own;
// the first wrong guess ends it, and the keys and values behind that are overwritten by later steps.
void Engine::draw_tokens(Sequence& sequence, std::span<const LogitRow> logits, int64_t first_output) {
  const int64_t accepted_before = sequence.accepted;
  sequence.guessed += int64_t(sequence.guesses.size());
  for (size_t row = 0;; ++row) {
    draw_token(sequence, logits[row], first_output + int64_t(row));
    if (sequence.finished) return;
    if (row == sequence.guesses.size() || sequence.guesses[row] != sequence.tokens.back()) break;
    ++sequence.accepted;
    ++sequence.computed;
    sequence.pages->commit(std::span(sequence.tokens).first(size_t(sequence.computed)));
  }
  sequence.end_guesses(sequence.accepted - accepted_before);
}

// `output`: which row of the step's output this is.
void Engine::draw_token(Sequence& sequence, const LogitRow& logits, int64_t output) {
  const Vocab& vocab = tokenizer_->vocab();
  Event event;
  event.id = sequence.request.id;
  const auto all = [&] { return logits.all.empty() ? model_->logits_row(output) : logits.all; };
  const auto reason = sequence.advance(logits, all, vocab, event);
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
                            std::span<const LogitRow> logits) {
  const std::span<float> values = sequence.request.values;
  for (int64_t row = 0; row < n_rows; ++row) {
    const std::span<const float> all = logits[size_t(row)].all;
    const int64_t position = first + row;
    if (sequence.request.kind == Request::Kind::kLogits)
      std::copy(all.begin(), all.end(), values.begin() + position * int64_t(all.size()));
    else if (position + 1 < sequence.n_prompt)
      values[size_t(position)] = float(log_probability(all, sequence.tokens[size_t(position + 1)]));
  }
  if (sequence.computed < sequence.n_prompt) return;
  Event event;
  event.values_ready = true;
  end(sequence, std::move(event));
}

}  // namespace maestrale
