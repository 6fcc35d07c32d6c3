// SPDX-License-Identifier: Apache-2.0
// What a sequence asks of a row of logits before they are computed.
#include "engine/sequence.h"

#include <cmath>

#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

Request with(const SamplingParams& sampling) {
  Request request;
  request.sampling = sampling;
  request.speculation.max_tokens = 4;
  return request;
}

}  // namespace

TEST("sequence: a row behind guesses is drawn as if they were right") {
  const Vocab vocab = tiny_vocab({});
  const StreamDecoder decoder(vocab);
  Sequence s(with({.top_k = 40,
                   .last_n_tokens = 3,
                   .frequency_penalty = 0.25f,
                   .presence_penalty = 0.5f,
                   .logit_bias = {{4, -1}},
                   .seed = 9}),
             decoder, 50);
  s.begin_prompt({5, 6, 7, 6}, decoder);
  s.guesses = {8, 6};
  // The bias, then what the latest three tokens are penalised by: twice, or once.
  const std::vector<std::vector<std::pair<int32_t, float>>> want = {
      {{4, -1}, {6, 1}, {7, 0.75f}},
      {{4, -1}, {7, 0.75f}, {6, 0.75f}, {8, 0.75f}},
      {{4, -1}, {6, 1}, {8, 0.75f}}};
  for (size_t n_guesses = 0; n_guesses < 3; ++n_guesses) {
    const RowRequest row = s.request_row(n_guesses, true);
    CHECK(!row.whole && row.draw);
    CHECK_EQ(row.draw->seed, 9u);
    CHECK_EQ(row.draw->position, 4 + n_guesses);
    CHECK_EQ(row.draw->n_biases, 1);
    std::vector<std::pair<int32_t, float>> changes;
    for (int32_t i = 0; i < row.draw->n_changes; ++i)
      changes.emplace_back(row.draw->changes[i].token, row.draw->changes[i].amount);
    CHECK(changes == want[n_guesses]);
    CHECK(s.tokens == (std::vector<int32_t>{5, 6, 7, 6}));
  }
}

TEST("sequence: it asks for whole rows, for their highest logits or for a token") {
  const Vocab vocab = tiny_vocab({});
  const StreamDecoder decoder(vocab);
  const auto ask = [&](const SamplingParams& sampling, bool device_draws, int32_t n_prompt = 4) {
    Sequence s(with(sampling), decoder, 1000);
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < n_prompt; ++i) prompt.push_back(i);
    s.begin_prompt(prompt, decoder);
    const RowRequest row = s.request_row(0, device_draws);
    return row.whole ? "whole" : row.draw ? "token" : "highest";
  };
  const SamplingParams penalised{.top_k = 40, .presence_penalty = 1};
  CHECK_EQ(ask({.temperature = 0}, true), std::string("token"));
  CHECK_EQ(ask({.temperature = 0}, false), std::string("highest"));
  CHECK_EQ(ask({.temperature = 1}, true), std::string("whole"));
  CHECK_EQ(ask({.temperature = 0, .logprobs = 1}, true), std::string("whole"));
  CHECK_EQ(ask(penalised, true, DrawRequest::kMostChanges), std::string("token"));
  CHECK_EQ(ask(penalised, true, DrawRequest::kMostChanges + 1), std::string("highest"));
}
