// SPDX-License-Identifier: Apache-2.0
#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>

namespace maestrale {

int32_t Scheduler::prefill_limit(int32_t generating) const {
  if (generating == 0 || ms_per_row_ <= 0.0) return budget_;
  const double rows = std::min(kMostExtraMs / ms_per_row_, double(budget_));
  return std::max(int32_t(rows), std::min(kLeastPrefill, budget_));
}

std::vector<int32_t> Scheduler::plan(std::span<const Candidate> candidates) {
  const size_t n = candidates.size();
  std::vector<int32_t> rows(n, 0);
  if (n == 0) return rows;
  int32_t generating = 0, prompts = 0;
  for (const Candidate& candidate : candidates)
    if (!candidate.paused) ++(candidate.generating ? generating : prompts);

  // More generating sequences than rows: they take turns, and a part of the budget stays for prompts.
  int32_t for_prompts = 0;
  if (prompts > 0) for_prompts = budget_ > 1 ? std::min(kLeastPrefill, budget_ / 2) : int32_t(steps_ & 1);
  int32_t left = generating > 0 ? budget_ - for_prompts : budget_;
  int32_t used = 0;
  for (size_t i = 0, start = next_generating_ % n; i < n && left > 0; ++i) {
    const size_t at = (start + i) % n;
    if (candidates[at].paused || !candidates[at].generating) continue;
    rows[at] = 1;
    ++used;
    --left;
    next_generating_ = at + 1;
  }

  left = std::min(budget_ - used, prefill_limit(generating));
  for (bool any = true; any && left > 0;) {
    any = false;
    for (size_t i = 0, start = next_prompt_ % n; i < n && left > 0; ++i) {
      const size_t at = (start + i) % n;
      const Candidate& candidate = candidates[at];
      if (candidate.paused || candidate.generating) continue;
      const int64_t missing = candidate.rows_left - rows[at];
      const int32_t more = int32_t(std::min<int64_t>({missing, kQuantum, left}));
      rows[at] += more;
      left -= more;
      if (more == 0) continue;
      any = true;
      next_prompt_ = at + 1;
    }
  }
  // One guessed row each, in turn, beginning where the turn of the generating ones is.
  left = std::min(budget_, kGuessedStepRows) - std::accumulate(rows.begin(), rows.end(), 0);
  for (bool any = true; any && left > 0;) {
    any = false;
    for (size_t i = 0, start = next_generating_ % n; i < n && left > 0; ++i) {
      const size_t at = (start + i) % n;
      if (rows[at] == 0 || !candidates[at].generating || rows[at] > candidates[at].guesses) continue;
      ++rows[at];
      --left;
      any = true;
    }
  }
  ++steps_;
  return rows;
}

void Scheduler::observe(int32_t prefill_rows, double ms) {
  // Short steps say little about the cost of a row: reading the weights dominates them.
  if (prefill_rows < kLeastPrefill) return;
  const double now = ms / prefill_rows;
  ms_per_row_ = ms_per_row_ <= 0.0 ? now : 0.75 * ms_per_row_ + 0.25 * now;
}

}  // namespace maestrale
