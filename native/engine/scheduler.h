// SPDX-License-Identifier: Apache-2.0
// Which rows the next step computes. Pure logic: no model, no clock, no threads.
//
// Sequences that generate get their one row first, so they keep streaming; the rest of the budget goes to
// prompts in quanta, in turn, so that a short prompt never waits for the end of a long one. Rows for
// guessed tokens only fill up a step that is small anyway. The choice changes when a row is computed and
// never its value.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace maestrale {

class Scheduler {
 public:
  static constexpr int32_t kQuantum = 64;       // rows a prompt gets before the next one has its turn
  static constexpr int32_t kLeastPrefill = 16;  // rows for prompts in a step, however slow the machine
  // Guessed rows join a step up to this many rows in all: so few cost little more than one, because
  // reading the weights dominates.
  static constexpr int32_t kGuessedStepRows = 16;
  static constexpr double kMostExtraMs = 300.0;  // that prompts may add to a step others stream from

  struct Candidate {
    int64_t rows_left = 0;  // tokens whose keys and values are not computed yet; 1 while generating
    bool generating = false;
    bool paused = false;
    int32_t guesses = 0;  // rows beyond rows_left that a generating sequence could use
  };

  explicit Scheduler(int32_t max_batch_tokens) : budget_(max_batch_tokens) {}

  // Rows for each candidate, in the same order; their sum is at most max_batch_tokens. All zero iff every
  // candidate is paused.
  std::vector<int32_t> plan(std::span<const Candidate> candidates);

  // Tells how long a step took, from which the cost of a prompt row is learned.
  void observe(int32_t prefill_rows, double ms);

  // Rows that prompts may have in a step with `generating` generating sequences.
  int32_t prefill_limit(int32_t generating) const;

 private:
  int32_t budget_;
  uint64_t steps_ = 0;
  size_t next_generating_ = 0, next_prompt_ = 0;  // the candidates whose turn it is
  double ms_per_row_ = 0.0;                       // smoothed; 0: nothing known
};

}  // namespace maestrale
