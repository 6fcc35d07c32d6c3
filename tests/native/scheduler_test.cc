// SPDX-License-Identifier: Apache-2.0
// Which rows a step computes: nobody starves, nobody is stalled, the budget holds.
#include "engine/scheduler.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"

using namespace maestrale;
using Candidate = Scheduler::Candidate;

namespace {

int32_t sum(const std::vector<int32_t>& rows) { return std::accumulate(rows.begin(), rows.end(), 0); }

}  // namespace

TEST("scheduler: generating sequences come first, one row each") {
  Scheduler scheduler(100);
  const std::vector<Candidate> candidates = {{1000}, {1, true}, {1, true}, {1000}};
  const std::vector<int32_t> rows = scheduler.plan(candidates);
  CHECK_EQ(rows[1], 1);
  CHECK_EQ(rows[2], 1);
  CHECK_EQ(sum(rows), 100);
  CHECK(rows[0] >= 34 && rows[3] >= 34);
}

TEST("scheduler: guesses fill up small steps, in turn and within the budget") {
  const std::vector<Candidate> two = {{1, true, false, 3}, {1, true, true, 9}, {1, true, false, 9}};
  CHECK(Scheduler(512).plan(two) == std::vector<int32_t>({4, 0, 10}));
  CHECK(Scheduler(8).plan(two) == std::vector<int32_t>({4, 0, 4}));
  CHECK(Scheduler(2).plan(two) == std::vector<int32_t>({1, 0, 1}));
  const std::vector<Candidate> many(10, Candidate{1, true, false, 15});
  CHECK_EQ(sum(Scheduler(512).plan(many)), Scheduler::kGuessedStepRows);
  const std::vector<Candidate> beside_prompt = {{1, true, false, 15}, {1000}};
  CHECK_EQ(Scheduler(64).plan(beside_prompt)[0], 1);
  Scheduler narrow(1);
  for (int step = 0; step < 4; ++step) CHECK_EQ(sum(narrow.plan(many)), 1);
}

TEST("scheduler: a short prompt is finished beside a long one") {
  Scheduler scheduler(128);
  const std::vector<Candidate> candidates = {{100000}, {20}};
  const std::vector<int32_t> rows = scheduler.plan(candidates);
  CHECK_EQ(rows[1], 20);
  CHECK_EQ(rows[0], 108);
}

TEST("scheduler: paused sequences get nothing and cost nothing") {
  Scheduler scheduler(64);
  const std::vector<Candidate> candidates = {{1, true, true}, {500, false, true}, {500}};
  const std::vector<int32_t> rows = scheduler.plan(candidates);
  CHECK_EQ(rows[0], 0);
  CHECK_EQ(rows[1], 0);
  CHECK_EQ(rows[2], 64);
  const std::vector<Candidate> all_paused = {{1, true, true}, {500, false, true}};
  CHECK_EQ(sum(scheduler.plan(all_paused)), 0);
  CHECK_EQ(sum(scheduler.plan({})), 0);
}

TEST("scheduler: a slow machine limits prompts only while others stream") {
  Scheduler scheduler(512);
  for (int i = 0; i < 20; ++i) scheduler.observe(512, 512 * 10.0);  // 10 ms a row
  const std::vector<Candidate> streaming = {{1, true}, {1000}};
  CHECK_EQ(scheduler.plan(streaming)[1], 30);  // 300 ms
  const std::vector<Candidate> alone = {{1000}};
  CHECK_EQ(scheduler.plan(alone)[0], 512);
  for (int i = 0; i < 40; ++i) scheduler.observe(512, 512 * 1000.0);
  CHECK_EQ(scheduler.plan(streaming)[1], 16);
}

TEST("scheduler: with fewer rows than sequences everybody gets a turn") {
  for (const int32_t budget : {1, 2, 3, 5, 8}) {
    Scheduler scheduler(budget);
    std::vector<Candidate> candidates(8, Candidate{1, true});
    candidates.push_back({1'000'000});
    candidates.push_back({1'000'000});
    std::vector<int64_t> got(candidates.size());
    for (int step = 0; step < 200; ++step) {
      const std::vector<int32_t> rows = scheduler.plan(candidates);
      CHECK(sum(rows) <= budget);
      for (size_t i = 0; i < rows.size(); ++i) got[i] += rows[i];
    }
    const auto [least, most] = std::minmax_element(got.begin(), got.begin() + 8);
    CHECK(*least >= 10);
    CHECK(*most <= 2 * *least + 2);
    CHECK(got[8] >= 10 && got[9] >= 10);
  }
}

TEST("scheduler: any work at all means progress within the budget") {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    Scheduler scheduler(int32_t(random() % 70 + 1));
    for (int step = 0; step < 3; ++step) {
      std::vector<Candidate> candidates(random() % 20);
      bool work = false;
      for (Candidate& c : candidates) {
        c.generating = random() % 2 == 0;
        c.rows_left = c.generating ? 1 : int64_t(random() % 300 + 1);
        c.paused = random() % 3 == 0;
        work = work || !c.paused;
      }
      const std::vector<int32_t> rows = scheduler.plan(candidates);
      if (!work) CHECK_EQ(sum(rows), 0);
      // With one row and both kinds waiting, either kind gets it.
      if (work) CHECK(sum(rows) > 0);
      for (size_t i = 0; i < rows.size(); ++i) CHECK(rows[i] >= 0 && rows[i] <= candidates[i].rows_left);
    }
  }
}
