// SPDX-License-Identifier: Apache-2.0
// The engine on the small reference models: the same bytes for a request whatever runs beside it, pages
// that come back, cancellation in every phase.
#include "engine/engine.h"

#include <chrono>
#include <ctime>
#include <thread>

#include "check.h"
#include "engine/score.h"
#include "engine_host.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

// Logits of all positions, computed by a fresh request.
std::vector<float> logits_of(Host& host, uint64_t id, const std::vector<int32_t>& tokens) {
  std::vector<float> values(tokens.size() * size_t(host.vocab_size()));
  Request r = request(id, tokens);
  r.kind = Request::Kind::kLogits;
  r.values = values;
  const Host::Outcome outcome = host.run(std::move(r));
  CHECK(outcome.last->values_ready);
  return values;
}

}  // namespace

TEST("engine: logits have the same bits for every chunk size, and are those of the model") {
  const std::vector<int32_t> tokens = some_tokens(200);
  const auto model = test::load_tiny(Host::kModel);
  const std::vector<float> expected = test::run_logits(*model, tokens, 200);
  for (const int32_t chunk : {1, 7, 64, 512}) {
    Host host(with_batch(chunk));
    CHECK(test::same_bits(logits_of(host, 1, tokens), expected));
    host.check_idle();
  }
}

TEST("engine: a request has the same text and logits alone and among 15 others") {
  const std::vector<int32_t> tokens = some_tokens(150);
  Host alone;
  const Host::Outcome expected = alone.run(request(1, tokens, 40));
  const std::vector<float> expected_logits = logits_of(alone, 2, tokens);
  CHECK_EQ(expected.tokens.size(), size_t(40));
  for (const int mates : {1, 3, 7, 15}) {
    OpenOptions options;
    options.max_batch_tokens = 64;
    Host host(options);
    for (int i = 0; i < mates; ++i)
      host.engine().submit(request(uint64_t(100 + i), some_tokens(size_t(20 + 37 * i), i + 1), 5 + 9 * i));
    const Host::Outcome outcome = host.run(request(1, tokens, 40));
    CHECK_EQ(outcome.text, expected.text);
    CHECK(outcome.tokens == expected.tokens);
    CHECK(test::same_bits(logits_of(host, 2, tokens), expected_logits));
    for (int i = 0; i < mates; ++i) CHECK_EQ(host.wait(uint64_t(100 + i)).tokens.size(), size_t(5 + 9 * i));
    host.check_idle();
  }
}

TEST("engine: a prefix hit changes the account and nothing else") {
  for (const char* model : {"models/hd128-q4_0.gguf", "models/full-bf16.gguf"}) {
    OpenOptions options;
    options.path = model;
    Host host(options);
    const std::vector<int32_t> tokens = some_tokens(333);
    const Host::Outcome cold = host.run(request(1, tokens, 30));
    CHECK_EQ(cold.last->done->cached_tokens, 0);
    const Host::Outcome warm = host.run(request(2, tokens, 30));
    CHECK_EQ(warm.last->done->cached_tokens, 320);
    CHECK(warm.tokens == cold.tokens);
    // A conversation goes on from what was generated.
    std::vector<int32_t> longer = tokens;
    longer.insert(longer.end(), cold.tokens.begin(), cold.tokens.end());
    longer.resize(longer.size() + 50, 9);
    const Host::Outcome next = host.run(request(3, longer, 30));
    CHECK_EQ(next.last->done->cached_tokens, 320);
    Host fresh(options);
    CHECK(fresh.run(request(1, longer, 30)).tokens == next.tokens);
    host.check_idle();
  }
}

TEST("engine: twenty windows of text need no more pages than two") {
  OpenOptions options;
  options.context_length = 64 * 21;
  options.max_batch_tokens = 64;
  Host host(options);  // window 64
  const Host::Outcome outcome = host.run(request(1, some_tokens(10), 64 * 20));
  CHECK_EQ(outcome.tokens.size(), size_t(64 * 20));
  CHECK(host.most_pages() <= 2);
  host.check_idle();
  CHECK(host.engine().stats().pages_cached <= 64);
}

TEST("engine: limits and refusals") {
  OpenOptions options;
  options.context_length = 100;
  options.max_sequences = 1;
  options.max_queue = 1;
  Host host(options);
  CHECK(host.run(request(1, some_tokens(101))).last->error->code() == ErrorCode::kContextLength);
  const Host::Outcome cut = host.run(request(2, some_tokens(95), 50));
  CHECK_EQ(cut.tokens.size(), size_t(5));
  CHECK(cut.last->done->reason == FinishReason::kLength);
  CHECK_EQ(host.run(request(3, some_tokens(100), 50)).tokens.size(), size_t(0));
  CHECK(host.run(request(4, {})).last->error->code() == ErrorCode::kInvalidArg);
  CHECK(host.run(request(5, {-1})).last->error->code() == ErrorCode::kInvalidArg);
  CHECK(host.run(request(6, {host.vocab_size()})).last->error->code() == ErrorCode::kInvalidArg);
  Request bad = request(7, {1});
  bad.sampling.top_p = 2.0f;
  CHECK_THROWS(host.engine().submit(bad), ErrorCode::kInvalidArg);
  host.engine().submit(request(8, some_tokens(5), 90));
  host.engine().submit(request(9, some_tokens(5), 1));
  CHECK_THROWS(host.engine().submit(request(10, {1})), ErrorCode::kQueueFull);
  host.engine().cancel(8);
  CHECK_EQ(host.wait(9).tokens.size(), size_t(1));
  host.check_idle();
}

TEST("engine: cancellation in every phase gives all pages back") {
  OpenOptions options;
  options.max_sequences = 2;
  options.max_batch_tokens = 16;
  options.context_length = 100000;
  Host host(options);
  const auto is_abort = [](const Host::Outcome& outcome) {
    return outcome.last->done && outcome.last->done->reason == FinishReason::kAbort;
  };
  // In the queue, behind two that run.
  host.engine().submit(request(1, some_tokens(10), 100000));
  host.engine().submit(request(2, some_tokens(10), 100000));
  host.engine().submit(request(3, some_tokens(10), 10));
  host.engine().cancel(3);
  CHECK(is_abort(host.wait(3)));
  // While generating.
  host.wait(1, [](const Host::Outcome& outcome) { return outcome.tokens.size() > 5; });
  host.engine().cancel(1);
  host.engine().cancel(1);
  const Host::Outcome one = host.wait(1);
  CHECK(is_abort(one));
  CHECK_EQ(one.last->done->completion_tokens, int64_t(one.tokens.size()));
  // Within a long prompt, beside one that goes on.
  host.engine().submit(request(4, some_tokens(5000), 10));
  const int64_t before = host.engine().stats().prompt_tokens;
  while (host.engine().stats().prompt_tokens < before + 64) std::this_thread::yield();
  host.engine().cancel(4);
  CHECK(is_abort(host.wait(4)));
  CHECK_EQ(host.wait(4).last->done->completion_tokens, 0);
  const size_t seen = host.wait(2, [](const Host::Outcome&) { return true; }).tokens.size();
  host.wait(2, [&](const Host::Outcome& outcome) { return outcome.tokens.size() > seen + 5; });
  // While paused.
  host.engine().pause(2);
  host.engine().cancel(2);
  CHECK(is_abort(host.wait(2)));
  // While its text is being read, and after its end.
  Request text = request(5, {});
  text.prompt = std::string(200000, 'x');
  host.engine().submit(std::move(text));
  host.engine().cancel(5);
  CHECK(is_abort(host.wait(5)));
  host.engine().cancel(5);
  host.engine().cancel(77);
  host.check_idle();
  // Nothing of what was thrown away is reused.
  const std::vector<int32_t> tokens = some_tokens(5000);
  Host fresh(options);
  CHECK(fresh.run(request(1, tokens, 5)).tokens == host.run(request(6, tokens, 5)).tokens);
}

TEST("engine: random cancellation under load loses nothing") {
  OpenOptions options;
  options.max_sequences = 8;
  options.max_batch_tokens = 32;
  options.context_length = 4000;
  Host host(options);
  uint32_t random = 1;
  const auto next = [&] { return (random = random * 1664525u + 1013904223u) >> 8; };
  constexpr uint64_t kRequests = 150;
  for (uint64_t id = 1; id <= kRequests; ++id) {
    host.engine().submit(request(id, some_tokens(next() % 400 + 1, int32_t(next() % 5)), next() % 40 + 1));
    if (next() % 3 == 0) host.engine().cancel(next() % id + 1);
    if (next() % 5 == 0) {
      const uint64_t paused = next() % id + 1;
      host.engine().pause(paused);
      host.engine().resume(paused);
    }
    if (next() % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(next() % 2000));
  }
  for (uint64_t id = 1; id <= kRequests; ++id) CHECK(host.wait(id).last->done.has_value());
  host.check_idle();
}

TEST("engine: a request that runs out of time is aborted, also when it is paused") {
  Host host;
  Request slow = request(1, some_tokens(10), 1000000);
  slow.timeout_ms = 30;
  const Host::Outcome outcome = host.run(std::move(slow));
  CHECK(outcome.last->done->reason != FinishReason::kStop);
  Request paused = request(2, some_tokens(10), 10);
  paused.timeout_ms = 30;
  host.engine().submit(std::move(paused));
  host.engine().pause(2);
  host.wait(2);
  host.check_idle();
}

TEST("engine: a paused sequence stands still and stalls nobody") {
  Host host;
  host.engine().submit(request(1, some_tokens(10), 300));
  host.wait(1, [](const Host::Outcome& outcome) { return outcome.tokens.size() > 3; });
  host.engine().pause(1);
  host.run(request(2, some_tokens(10), 50));
  const size_t seen = host.wait(1, [](const Host::Outcome&) { return true; }).tokens.size();
  host.run(request(3, some_tokens(10), 50));
  CHECK_EQ(host.wait(1, [](const Host::Outcome&) { return true; }).tokens.size(), seen);
  host.engine().resume(1);
  const Host::Outcome paused = host.wait(1);
  CHECK(paused.tokens == host.run(request(4, some_tokens(10), 300)).tokens);
}

TEST("engine: stop strings end the text before them and may straddle tokens") {
  Host host;
  Request r = request(1, some_tokens(30), 60);
  const Host::Outcome whole = host.run(r);
  CHECK(whole.text.size() > 20);
  r.id = 2;
  r.stop = {whole.text.substr(10, 7)};
  const Host::Outcome stopped = host.run(std::move(r));
  CHECK(stopped.last->done->reason == FinishReason::kStop);
  CHECK_EQ(stopped.text, whole.text.substr(0, whole.text.find(whole.text.substr(10, 7))));
}

TEST("engine: scores are the log-probabilities of the logits") {
  Host host(with_batch(16));
  const std::vector<int32_t> tokens = some_tokens(70);
  const std::vector<float> logits = logits_of(host, 1, tokens);
  std::vector<float> values(tokens.size() - 1);
  Request r = request(2, tokens);
  r.kind = Request::Kind::kScore;
  r.values = values;
  host.run(std::move(r));
  const size_t vocab = size_t(host.vocab_size());
  for (size_t i = 0; i + 1 < tokens.size(); ++i)
    CHECK_EQ(values[i], float(log_probability(std::span(logits).subspan(i * vocab, vocab), tokens[i + 1])));
}

TEST("engine: stopping at any moment ends every request exactly once") {
  for (int i = 0; i < 12; ++i) {
    Host host;
    for (uint64_t id = 1; id <= 20; ++id)
      host.engine().submit(request(id, some_tokens(100, int32_t(id)), 1000));
    Request text = request(21, {});
    text.prompt = std::string(20000, 'y');
    host.engine().submit(std::move(text));
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * i));
    host.engine().stop();
    CHECK_THROWS(host.engine().submit(request(99, {1})), ErrorCode::kDisposed);
    host.destroy();
    for (uint64_t id = 1; id <= 21; ++id)
      CHECK(host.wait(id).last->error.has_value() || host.wait(id).last->done.has_value());
  }
}

TEST("engine: an idle engine uses no CPU") {
  Host host;
  host.run(request(1, some_tokens(10), 5));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::clock_t begin = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  CHECK(double(std::clock() - begin) / CLOCKS_PER_SEC < 0.02);
}
