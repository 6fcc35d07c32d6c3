// SPDX-License-Identifier: Apache-2.0
// What prompt lookup guesses, and that guessing changes the number of steps and not a byte of any text.
#include "engine/prompt_lookup.h"

#include <numeric>

#include "check.h"
#include "engine_host.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

using Ids = std::vector<int32_t>;

Ids guess(const Ids& tokens, int64_t most = 15, Speculation options = {15, 2}) {
  return PromptLookup(options).guess(tokens, most);
}

// A text that repeats itself in most places.
Ids repetitive(size_t n) {
  Ids tokens = some_tokens(24, 3);
  for (size_t i = tokens.size(); i < n; ++i) tokens.push_back(tokens[i % 31 < 27 ? i - 24 : i - 7]);
  return tokens;
}

// Lets only the three digits 0, 1 and 2 be drawn, so that a model of random weights repeats itself now and
// then; which of them comes still depends on every bit of its logits.
Request with_few_tokens(Request request) {
  for (const int32_t token : {51, 52, 53}) request.sampling.logit_bias.push_back({token, 100.0f});
  return request;
}

Request speculative(Request request, int32_t max_tokens = 7) {
  request.speculation = {max_tokens, 1};
  return request;
}

// Without guesses and with them: the same text, tokens, log-probabilities and reason.
void check_same(const Host::Outcome& with, const Host::Outcome& without) {
  CHECK_EQ(with.text, without.text);
  CHECK(with.tokens == without.tokens);
  CHECK_EQ(with.events, without.events);
  CHECK(with.logprobs == without.logprobs);
  CHECK(with.last->done.has_value());
  CHECK(with.last->done->reason == without.last->done->reason);
  CHECK_EQ(with.last->done->completion_tokens, without.last->done->completion_tokens);
}

}  // namespace

TEST("prompt lookup: what followed the longest known n-gram, in its latest occurrence") {
  CHECK(guess({1, 2, 3, 4, 1, 2}) == Ids({3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1}));
  CHECK(guess({1, 2, 3, 4, 1, 2}, 1) == Ids({3}));
  CHECK(guess({1, 2, 3, 8, 1, 2, 4, 9, 1, 2}, 1) == Ids({4}));
  CHECK(guess({7, 1, 2, 3, 9, 8, 1, 2, 4, 9, 7, 1, 2}, 1) == Ids({3}));
  CHECK(guess({5, 5, 5}, 3) == Ids({5, 5, 5}));
  CHECK(guess({5, 6, 5}).empty());
  CHECK(guess({5, 6, 5}, 2, {15, 1}) == Ids({6, 5}));
  CHECK(guess({1, 2, 3}).empty());
  CHECK(guess({}).empty());
  CHECK(guess({5, 5, 5}, 0).empty());
  CHECK(guess({5, 5, 5}, -1).empty());
  CHECK_THROWS(PromptLookup({16, 2}), ErrorCode::kInvalidArg);
  CHECK_THROWS(PromptLookup({4, 0}), ErrorCode::kInvalidArg);
  CHECK_THROWS(PromptLookup({4, 5}), ErrorCode::kInvalidArg);
}

TEST("prompt lookup: an index that grows with the text finds what a fresh one finds") {
  const Ids tokens = repetitive(300);
  PromptLookup growing({15, 1});
  for (size_t n = 1; n <= tokens.size(); ++n) {
    const Ids begin(tokens.begin(), tokens.begin() + long(n));
    CHECK(growing.guess(begin, 15) == guess(begin, 15, {15, 1}));
  }
}

TEST("prompt lookup: wrong guesses become shorter and rarer, right ones longer") {
  PromptLookup lookup({8, 2});
  Ids tokens(20, 5);
  CHECK_EQ(lookup.guess(tokens, 15).size(), size_t(8));
  lookup.observe(8, 2, 20);
  CHECK_EQ(lookup.guess(tokens, 15).size(), size_t(3));
  lookup.observe(3, 0, 20);
  CHECK_EQ(lookup.guess(tokens, 15).size(), size_t(1));
  lookup.observe(1, 0, 20);
  CHECK(lookup.guess(tokens, 15).empty());
  tokens.resize(24, 5);
  CHECK_EQ(lookup.guess(tokens, 15).size(), size_t(1));
  lookup.observe(1, 0, 24);
  tokens.resize(31, 5);
  CHECK(lookup.guess(tokens, 15).empty());
  tokens.resize(32, 5);
  for (const size_t expected : {1, 2, 4, 8, 8}) {
    CHECK_EQ(lookup.guess(tokens, 15).size(), expected);
    lookup.observe(int64_t(expected), int64_t(expected), 32);
  }
}

TEST("speculation: the same bytes for every model, sampler and guess length") {
  struct Case {
    float temperature, repetition, frequency;
    int32_t logprobs;
  };
  constexpr Case kCases[] = {{0, 1, 0, 0}, {0, 1.1f, 0, 3}, {0.7f, 1.1f, 0.1f, 2}, {0.3f, 1, 0, 0}};
  // Windows of 64, 16 and none; every storage of the KV cache.
  const std::pair<const char*, KvType> models[] = {{"models/hd128-q4_0.gguf", KvType::kF16},
                                                   {"models/hd128-q6_k.gguf", KvType::kQ8_0},
                                                   {"models/swa16-bf16.gguf", KvType::kF16},
                                                   {"models/full-bf16.gguf", KvType::kBF16}};
  int64_t accepted = 0, rejected = 0;
  for (const auto& [path, kv] : models) {
    OpenOptions options;
    options.path = path;
    options.kv_type = kv;
    Host host(options);
    uint64_t id = 0;
    for (const Case& c : kCases)
      for (const uint64_t seed : {1, 2}) {
        Ids prompt = repetitive(70 + 40 * size_t(seed));
        for (int32_t& token : prompt) token %= std::min(host.vocab_size(), 500);
        Request r = with_few_tokens(request(++id, prompt, 150));
        r.sampling.temperature = c.temperature;
        r.sampling.repetition_penalty = c.repetition;
        r.sampling.frequency_penalty = c.frequency;
        r.sampling.logprobs = c.logprobs;
        r.sampling.seed = seed;
        r.sampling.top_k = 5;
        const Host::Outcome plain = host.run(r);
        for (const int32_t length : {1, 4, 15}) {
          r.id = ++id;
          const Host::Outcome guessed = host.run(speculative(r, length));
          check_same(guessed, plain);
          accepted += guessed.last->done->accepted_tokens;
          rejected += guessed.last->done->guessed_tokens - guessed.last->done->accepted_tokens;
        }
      }
    host.check_idle();
  }
  // Both ways out of a guess were taken often.
  CHECK(accepted > 500);
  CHECK(rejected > 200);
}

TEST("speculation: stop strings, end of text and limits within guesses") {
  Host host;
  const Ids prompt = repetitive(100);
  Request r = with_few_tokens(request(1, prompt, 120));
  r.sampling.temperature = 0.5f;
  r.sampling.repetition_penalty = 1;
  const Host::Outcome whole = host.run(r);
  CHECK_EQ(whole.text.size(), size_t(120));
  uint64_t id = 1;
  for (size_t at = 0; at + 9 < whole.text.size() && at < 60; at += 6) {
    r.stop = {whole.text.substr(at, 9)};
    r.id = ++id;
    const Host::Outcome plain = host.run(r);
    r.id = ++id;
    const int64_t before = host.engine().stats().completion_tokens;
    const Host::Outcome guessed = host.run(speculative(r, 15));
    check_same(guessed, plain);
    CHECK_EQ(host.engine().stats().completion_tokens - before, int64_t(guessed.tokens.size()));
  }
  r.stop.clear();
  for (int64_t n_new = 1; n_new < 40; ++n_new) {
    r.max_new_tokens = n_new;
    r.id = ++id;
    const Host::Outcome guessed = host.run(speculative(r, 15));
    CHECK_EQ(guessed.tokens.size(), size_t(n_new));
    CHECK(std::equal(guessed.tokens.begin(), guessed.tokens.end(), whole.tokens.begin()));
  }
  r.ignore_eos = false;
  r.sampling.logit_bias.push_back({2, 99.0f});
  r.max_new_tokens = 120;
  int64_t ended = 0;
  for (r.sampling.seed = 1; r.sampling.seed <= 20; ++r.sampling.seed) {
    r.id = ++id;
    const Host::Outcome plain = host.run(r);
    r.id = ++id;
    check_same(host.run(speculative(r, 15)), plain);
    ended += plain.last->done->reason == FinishReason::kStop && plain.tokens.size() > 5;
  }
  CHECK(ended > 5);
  host.check_idle();
}

TEST("speculation: the end of the context, and as few pages as the window needs") {
  for (const int32_t batch : {1, 3, 16, 64}) {
    OpenOptions options = with_batch(batch);
    options.context_length = 700;
    Host host(options);  // window 64
    Request r = with_few_tokens(request(1, repetitive(40), 100000));
    r.sampling.temperature = 0;
    const Host::Outcome plain = host.run(r);
    CHECK_EQ(plain.tokens.size(), size_t(660));
    r.id = 2;
    check_same(host.run(speculative(r, 15)), plain);
    CHECK(host.most_pages() <= pages_needed(700, 64, batch));
    host.check_idle();
  }
}

TEST("speculation: no page beyond those of the longest timeline") {
  OpenOptions options;
  options.path = "models/full-bf16.gguf";
  options.context_length = 192;
  Host host(options);
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Request r = with_few_tokens(request(seed, repetitive(40), 1000));
    r.sampling.seed = seed;
    r.sampling.temperature = 0.3f;
    CHECK_EQ(host.run(speculative(r, 15)).tokens.size(), size_t(152));
  }
  CHECK_EQ(host.most_pages(), int64_t(3));
  host.check_idle();
}

TEST("speculation: among others, with pauses and cancellations") {
  OpenOptions options;
  options.max_batch_tokens = 24;
  options.max_sequences = 8;
  options.context_length = 4000;
  Host alone(options), host(options);
  std::vector<Host::Outcome> expected;
  const auto make = [](uint64_t id) {
    Request r = with_few_tokens(request(id, repetitive(30 + 17 * size_t(id)), 80 + 10 * int64_t(id)));
    r.sampling.temperature = id % 2 == 0 ? 0.0f : 0.4f;
    r.sampling.top_k = 3;
    r.sampling.seed = id;
    return r;
  };
  for (uint64_t id = 1; id <= 10; ++id) expected.push_back(alone.run(make(id)));
  for (uint64_t id = 1; id <= 10; ++id) host.engine().submit(speculative(make(id), int32_t(id) + 3));
  for (uint64_t id = 1; id <= 5; ++id) host.engine().submit(speculative(make(100 + id), 9));
  for (uint64_t round = 0; round < 60; ++round) {
    host.engine().pause(round % 10 + 1);
    if (round % 12 == 5) host.engine().cancel(100 + round / 12 + 1);
    std::this_thread::sleep_for(std::chrono::microseconds(300));
    host.engine().resume(round % 10 + 1);
  }
  for (uint64_t id = 1; id <= 10; ++id) check_same(host.wait(id), expected[id - 1]);
  for (uint64_t id = 1; id <= 5; ++id) CHECK(host.wait(100 + id).last->done.has_value());
  host.check_idle();
}

TEST("speculation: what is cached for later requests holds accepted tokens only") {
  Host host;
  Request r = with_few_tokens(request(1, repetitive(90), 200));
  r.sampling.temperature = 0.5f;
  const Host::Outcome first = host.run(speculative(r, 15));
  Ids longer = repetitive(90);
  longer.insert(longer.end(), first.tokens.begin(), first.tokens.end());
  r.prompt = longer;
  r.id = 2;
  const Host::Outcome warm = host.run(r);
  CHECK(warm.last->done->cached_tokens >= 256);
  Host fresh;
  CHECK(fresh.run(r).tokens == warm.tokens);
}

TEST("speculation: a text that repeats itself takes a step a guess less") {
  Host host;
  Request r = request(1, repetitive(100), 200);
  r.sampling.temperature = 0;
  r.sampling.repetition_penalty = 1;
  r.sampling.logit_bias = {{40, 1e6f}};  // the same token again and again
  const int64_t before = host.engine().stats().steps;
  const Host::Outcome plain = host.run(r);
  const int64_t plain_steps = host.engine().stats().steps - before;
  CHECK_EQ(plain_steps, int64_t(200));  // the first one computes the prompt
  CHECK_EQ(plain.last->done->guessed_tokens, 0);
  r.id = 2;
  const Host::Outcome guessed = host.run(speculative(r, 7));
  const int64_t steps = host.engine().stats().steps - before - plain_steps;
  check_same(guessed, plain);
  CHECK_EQ(steps, 200 - guessed.last->done->accepted_tokens);
  CHECK(steps < 35);
}
