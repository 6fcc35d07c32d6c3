// SPDX-License-Identifier: Apache-2.0
// Adapters in the engine: chosen per request, mixed in one batch with the same bytes, loaded and unloaded
// while requests run.
#include <atomic>
#include <thread>

#include "adapter_builder.h"
#include "check.h"
#include "engine_host.h"
#include "expect_error.h"
#include "tiny_model.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

constexpr const char* kBase = "models/hd128-q4_0.gguf";

OpenOptions base_options() {
  OpenOptions options;
  options.path = kBase;
  return options;
}

std::string rslora() { return std::string(test::kVectors) + "/adapters/hd128-all-rslora"; }

AdapterFacts load(Host& host, const std::string& name, float scale = 1.0f,
                  const std::string& path = rslora()) {
  return host.engine().load_adapter(
      path, name, scale, [] { return open_base_weights(std::string(test::kVectors) + "/" + kBase); });
}

// Three adapters for hd128: one scaled, one on other matrices, one with a head of its own.
struct Adapters {
  PeftDirectory few{"hd128-all-rslora"}, head{"hd128-all-rslora"};

  Adapters() {
    few.set("target_modules", R"(["k_proj", "down_proj"])");
    std::erase_if(few.tensors, [](const TensorCopy& tensor) {
      return tensor.name.find("k_proj") == std::string::npos &&
             tensor.name.find("down_proj") == std::string::npos;
    });
    few.write();
    head.set("modules_to_save", R"(["lm_head"])");
    head.tensors.push_back(float_tensor("base_model.model.lm_head.weight", {512, 256}));
    head.write();
  }
  void load_into(Host& host) const {
    load(host, "a", -2.0f);
    load(host, "b", 1.0f, few.path());
    load(host, "c", 1.0f, head.path());
  }
};

Request with(Request r, const std::string& adapter) {
  r.adapter = adapter;
  return r;
}

}  // namespace

TEST("engine_adapter: 8 requests with 3 adapters and none are bit for bit what they are alone") {
  const Adapters adapters;
  const std::string names[] = {"", "a", "b", "c", "a", "", "c", "b"};
  std::vector<Host::Outcome> want;
  std::vector<std::vector<float>> want_logits;
  const auto prompt = [](size_t i) { return some_tokens(30 + 40 * i, int32_t(i)); };
  const auto values_request = [&](size_t i, std::vector<float>& values) {
    Request r = with(request(100 + i, prompt(i)), names[i]);
    r.kind = Request::Kind::kLogits;
    values.resize(prompt(i).size() * 512);
    r.values = values;
    return r;
  };
  for (size_t i = 0; i < 8; ++i) {
    Host alone(base_options());
    adapters.load_into(alone);
    Request r = with(request(1, prompt(i), 40), names[i]);
    r.sampling.logprobs = 3;
    want.push_back(alone.run(std::move(r)));
    want_logits.emplace_back();
    alone.run(values_request(i, want_logits.back()));
  }
  for (size_t i = 1; i < 8; ++i) CHECK(want[i].tokens != want[0].tokens);
  for (const int32_t chunk : {48, 512}) {
    OpenOptions options = base_options();
    options.max_batch_tokens = chunk;
    options.threads = 2;
    Host host(options);
    adapters.load_into(host);
    std::vector<std::vector<float>> logits(8);
    for (size_t i = 0; i < 8; ++i) {
      Request r = with(request(1 + i, prompt(i), 40), names[i]);
      r.sampling.logprobs = 3;
      host.engine().submit(std::move(r));
      host.engine().submit(values_request(i, logits[i]));
    }
    for (size_t i = 0; i < 8; ++i) {
      const Host::Outcome outcome = host.wait(1 + i);
      CHECK(outcome.tokens == want[i].tokens);
      CHECK(same_bits(outcome.logprobs, want[i].logprobs));
      host.wait(100 + i);
      CHECK(same_bits(logits[i], want_logits[i]));
    }
    host.check_idle();
  }
}

TEST("engine_adapter: cached prefixes belong to the adapter that made them") {
  Host host(base_options());
  load(host, "a");
  load(host, "b", -2.0f);
  const std::vector<int32_t> tokens = some_tokens(200);
  const auto run = [&](uint64_t id, const std::string& adapter, int64_t cached) {
    const Host::Outcome outcome = host.run(with(request(id, tokens, 20), adapter));
    CHECK_EQ(outcome.last->done->cached_tokens, cached);
    return outcome.tokens;
  };
  const auto base = run(1, "", 0), a = run(2, "a", 0), b = run(3, "b", 0);
  CHECK(a != base && b != base && a != b);
  CHECK(run(4, "", 192) == base);
  CHECK(run(5, "a", 192) == a);
  CHECK(run(6, "b", 192) == b);
  // The name says nothing: what was loaded under it before is another adapter.
  host.engine().unload_adapter("a");
  load(host, "a", -2.0f);
  CHECK(run(7, "a", 0) == b);
  host.check_idle();
}

TEST("engine_adapter: names") {
  Host host(base_options());
  CHECK(host.engine().adapters().empty());
  expect_error("unknown", ErrorCode::kAdapter, "no adapter named 'x' is loaded; loaded are none",
               [&] { host.engine().submit(with(request(1, {1}), "x")); });
  const AdapterFacts facts = load(host, "x", 0.5f);
  CHECK_EQ(facts.rank, 8);
  CHECK_EQ(facts.scale, 0.5f);
  CHECK_EQ(facts.path, rslora());
  CHECK_EQ(facts.parameters, 77824u);
  CHECK_EQ(host.engine().adapters().size(), 1u);
  expect_error("twice", ErrorCode::kAdapter, "an adapter named 'x' is loaded already",
               [&] { load(host, "x"); });
  expect_error("other", ErrorCode::kAdapter, "loaded are 'x'",
               [&] { host.engine().submit(with(request(1, {1}), "y")); });
  CHECK_THROWS(host.engine().unload_adapter("y"), ErrorCode::kAdapter);
  host.engine().unload_adapter("x");
  CHECK(host.engine().adapters().empty());
  CHECK_THROWS(host.engine().submit(with(request(1, {1}), "x")), ErrorCode::kAdapter);
  // A refused request uses nothing, so it holds nothing up.
  load(host, "x");
  Request bad = with(request(1, {1}), "x");
  bad.sampling.top_p = 2.0f;
  CHECK_THROWS(host.engine().submit(bad), ErrorCode::kInvalidArg);
  host.engine().unload_adapter("x");
  host.check_idle();
}

TEST("engine_adapter: unloading waits for its users and for nobody else") {
  OpenOptions options = base_options();
  options.max_sequences = 2;
  options.context_length = 1'000'000;
  Host host(options);
  load(host, "a");
  const auto running = [](const Host::Outcome& outcome) { return outcome.tokens.size() > 3; };
  host.engine().submit(with(request(1, some_tokens(10), 1'000'000), "a"));
  host.engine().submit(request(2, some_tokens(10), 1'000'000));
  host.engine().submit(with(request(3, some_tokens(10), 1'000'000), "a"));  // waits for a place
  host.wait(1, running);
  std::atomic<bool> gone{false};
  std::jthread unloading([&] {
    host.engine().unload_adapter("a");
    gone = true;
  });
  // As soon as it has begun, new requests are refused.
  std::string refusal;
  for (uint64_t id = 10; refusal.empty(); ++id) {
    try {
      host.engine().submit(with(request(id, some_tokens(10), 1), "a"));
      host.engine().cancel(id);
      host.wait(id);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kAdapter);
      refusal = error.message();
    }
  }
  CHECK_EQ(refusal, std::string("the adapter 'a' is being unloaded"));
  expect_error("again", ErrorCode::kAdapter, "being unloaded", [&] { host.engine().unload_adapter("a"); });
  expect_error("reload", ErrorCode::kAdapter, "still being unloaded", [&] { load(host, "a"); });
  host.engine().cancel(1);
  host.wait(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  CHECK(!gone);  // the third one still needs it, wherever it is
  CHECK_EQ(host.engine().adapters().front().requests, 1);
  host.engine().cancel(3);
  unloading.join();
  CHECK(gone && host.engine().adapters().empty());
  const size_t seen = host.wait(2, running).tokens.size();
  host.wait(2, [&](const Host::Outcome& outcome) { return outcome.tokens.size() > seen; });
  host.engine().cancel(2);
  host.wait(2);
  host.check_idle();
}

TEST("engine_adapter: stopping the engine wakes whoever waits for an adapter's users") {
  OpenOptions options = base_options();
  options.context_length = 1'000'000;
  Host host(options);
  load(host, "a");
  host.engine().submit(with(request(1, some_tokens(10), 1'000'000), "a"));
  host.wait(1, [](const Host::Outcome& outcome) { return !outcome.tokens.empty(); });
  host.engine().pause(1);  // it would never end by itself
  std::atomic<bool> ended{false};
  const auto visit = std::make_unique<Engine::Visit>(host.engine());
  std::thread unloading([&] {
    try {
      visit->engine().unload_adapter("a");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kDisposed);
    }
    ended = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  host.engine().stop();
  unloading.join();
  CHECK(ended);
}

TEST("engine_adapter: adapters come and go under load") {
  OpenOptions options = base_options();
  options.max_sequences = 6;
  options.max_batch_tokens = 32;
  options.threads = 2;
  Host host(options);
  const std::vector<int32_t> tokens = some_tokens(40);
  load(host, "a");
  const Host::Outcome base = host.run(request(1, tokens, 20));
  const Host::Outcome adapted = host.run(with(request(2, tokens, 20), "a"));
  CHECK(base.tokens != adapted.tokens);
  host.engine().unload_adapter("a");

  std::atomic<int> loads{0};
  std::jthread churn([&](const std::stop_token& stop) {
    for (int i = 0; !stop.stop_requested(); ++i) {
      const std::string name = "n" + std::to_string(i % 3);
      load(host, name);
      ++loads;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      host.engine().unload_adapter(name);
    }
  });
  uint64_t id = 10;
  int with_adapter = 0;
  while (loads < 30 || with_adapter < 10) {
    std::vector<std::pair<uint64_t, bool>> sent;
    for (int i = 0; i < 6; ++i) {
      const std::vector<AdapterFacts> there = host.engine().adapters();
      const std::string name = i % 2 == 0 || there.empty() ? "" : there.front().name;
      try {
        host.engine().submit(with(request(++id, tokens, 20), name));
        sent.emplace_back(id, name != "");
        if (i == 5) host.engine().cancel(id);
      } catch (const Error& error) {  // not there, or going
        CHECK(error.code() == ErrorCode::kAdapter);
      }
    }
    for (const auto& [sent_id, uses] : sent) {
      const Host::Outcome outcome = host.wait(sent_id);
      CHECK(outcome.last->done.has_value());
      if (outcome.last->done->reason == FinishReason::kAbort) continue;
      CHECK(outcome.tokens == (uses ? adapted : base).tokens);
      with_adapter += uses;
    }
  }
  churn.request_stop();
  churn.join();
  CHECK(host.engine().adapters().empty());
  host.check_idle();
}
