// SPDX-License-Identifier: Apache-2.0
// The sampler against transformers' logits processors, against the definitions, and against bad input.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "sampling/sampler.h"
#include "vocab_fixture.h"

using namespace maestrale;
using namespace maestrale::test;

namespace {

const float kInf = std::numeric_limits<float>::infinity();

SamplingParams params_from_name(const std::string& name) {
  SamplingParams params;
  for (size_t at = 0; at < name.size();) {
    const size_t equals = name.find('=', at), comma = std::min(name.find(',', at), name.size());
    const std::string key = name.substr(at, equals - at);
    const float value = std::stof(name.substr(equals + 1, comma - equals - 1));
    if (key == "temperature")
      params.temperature = value;
    else if (key == "top_k")
      params.top_k = int32_t(value);
    else if (key == "top_p")
      params.top_p = value;
    else if (key == "min_p")
      params.min_p = value;
    else if (key == "typical_p")
      params.typical_p = value;
    else if (key == "repetition_penalty")
      params.repetition_penalty = value;
    else
      fail(__FILE__, __LINE__, "unknown option " + key);
    at = comma + 1;
  }
  return params;
}

std::vector<int32_t> kept(SamplingParams params, const std::vector<float>& logits,
                          std::vector<int32_t> history = {}) {
  Sampler sampler(std::move(params), int32_t(logits.size()));
  std::vector<int32_t> ids;
  for (const TokenProbability& item : sampler.distribution(logits, history, 0)) ids.push_back(item.token);
  return ids;
}

int32_t greedy(SamplingParams params, const std::vector<float>& logits, std::vector<int32_t> history = {}) {
  params.temperature = 0;
  return Sampler(std::move(params), int32_t(logits.size())).sample(logits, history, 0).token;
}

// A skewed distribution over `n` tokens, in shuffled order.
std::vector<float> shuffled_logits(size_t n) {
  std::vector<float> logits(n);
  uint32_t state = 12345;
  for (float& logit : logits) {
    state = state * 1664525 + 1013904223;
    logit = float(state >> 8) / float(1 << 24) * 12;
  }
  return logits;
}

}  // namespace

TEST("sampling: 22 reference cases, kept ids exactly, probabilities to 1e-5") {
  const Json file = load_json("sampling.vectors.json");
  const Json::Array& cases = *file.find("cases")->array();
  CHECK_EQ(cases.size(), 22u);
  for (const Json& item : cases) {
    const std::string& name = *item.find("name")->string();
    const std::vector<float> logits = json_numbers<float>(*item.find("logits"));
    Sampler sampler(params_from_name(name), int32_t(logits.size()));
    const auto got = sampler.distribution(logits, json_numbers<int32_t>(*item.find("previous")), 0);
    const std::vector<int32_t> ids = json_numbers<int32_t>(*item.find("kept"));
    const std::vector<double> probabilities = json_numbers<double>(*item.find("probs"));
    std::vector<int32_t> got_ids;
    for (const TokenProbability& token : got) got_ids.push_back(token.token);
    if (got_ids != ids) fail(__FILE__, __LINE__, name + ": " + show(got_ids) + " != " + show(ids));
    for (size_t i = 0; i < ids.size(); ++i)
      if (std::fabs(got[i].probability - probabilities[i]) > 1e-5) fail(__FILE__, __LINE__, name);
  }
}

TEST("sampling: filters select the same from a large vocabulary as the definitions do") {
  const std::vector<float> logits = shuffled_logits(32000);
  std::vector<std::pair<float, int32_t>> sorted;
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    sorted.emplace_back(logits[i], int32_t(i));
    sum += std::exp(double(logits[i]));
  }
  std::sort(sorted.rbegin(), sorted.rend());
  for (const int32_t k : {1, 2, 40, 1000, 31999}) {
    std::vector<int32_t> expected;
    for (const auto& [logit, id] : sorted)
      if (logit >= sorted[size_t(k - 1)].first) expected.push_back(id);
    std::sort(expected.begin(), expected.end());
    CHECK(kept({.top_k = k}, logits) == expected);
  }
  for (const float p : {0.01f, 0.5f, 0.9f, 0.999f}) {
    std::vector<int32_t> expected;
    double mass = 0;
    for (const auto& [logit, id] : sorted) {
      if (mass >= double(p)) break;
      mass += std::exp(double(logit)) / sum;
      expected.push_back(id);
    }
    std::sort(expected.begin(), expected.end());
    CHECK(kept({.top_p = p}, logits) == expected);
  }
}

TEST("sampling: ties") {
  const std::vector<float> logits = {1, 3, 3, 3, 0, 2};
  CHECK_EQ(greedy({}, logits), 1);
  CHECK_EQ(show(kept({.top_k = 1}, logits)), "1 2 3 ");
  CHECK_EQ(show(kept({.top_k = 4}, logits)), "1 2 3 5 ");
  CHECK_EQ(show(kept({.top_p = 0.01f}, logits)), "3 ");
  CHECK_EQ(kept({.top_k = 10}, std::vector<float>(5000, 1.0f)).size(), 5000u);
}

TEST("sampling: penalties") {
  const std::vector<float> logits = {2, 1.9f, -1, 0};
  // Once for each distinct token, however often it occurred.
  CHECK_EQ(greedy({.repetition_penalty = 1.2f}, logits, {0, 0, 0}), 1);
  CHECK_EQ(greedy({.repetition_penalty = 1.04f}, logits, {0, 0, 0}), 0);
  // Below zero the score is multiplied: token 2 falls behind token 3 either way, never ahead.
  Sampler repeat({.repetition_penalty = 2}, 4);
  const auto repeated = repeat.distribution(logits, std::vector<int32_t>{0, 2}, 0);
  const double sum = std::exp(1.0) + std::exp(double(1.9f)) + std::exp(-2.0) + 1;
  CHECK(std::fabs(repeated[0].probability - std::exp(1.0) / sum) < 1e-6);
  CHECK(std::fabs(repeated[2].probability - std::exp(-2.0) / sum) < 1e-6);
  // Frequency counts, presence does not.
  CHECK_EQ(greedy({.frequency_penalty = 0.04f}, logits, {0, 0}), 0);
  CHECK_EQ(greedy({.frequency_penalty = 0.04f}, logits, {0, 0, 0}), 1);
  CHECK_EQ(greedy({.presence_penalty = 0.09f}, logits, {0, 0, 0}), 0);
  CHECK_EQ(greedy({.presence_penalty = 0.11f}, logits, {0}), 1);
  // The window: only the last n tokens count, 0 switches penalties off, -1 means all.
  CHECK_EQ(greedy({.last_n_tokens = 2, .presence_penalty = 1}, logits, {0, 3, 3}), 0);
  CHECK_EQ(greedy({.last_n_tokens = 3, .presence_penalty = 1}, logits, {0, 3, 3}), 1);
  CHECK_EQ(greedy({.last_n_tokens = 0, .presence_penalty = 1}, logits, {0, 3, 3}), 0);
  CHECK_EQ(greedy({.last_n_tokens = -1, .presence_penalty = 1}, logits, {0, 3, 3}), 1);
  CHECK_EQ(greedy({.last_n_tokens = 100, .presence_penalty = 1}, logits, {0}), 1);
  CHECK_THROWS(greedy({.presence_penalty = 1}, logits, {4}), ErrorCode::kInvalidArg);
}

TEST("sampling: logit bias moves, bans and can leave nothing") {
  const std::vector<float> logits = {2, 1, 0};
  CHECK_EQ(greedy({.logit_bias = {{1, 1.5f}}}, logits), 1);
  CHECK_EQ(greedy({.logit_bias = {{0, -kInf}}}, logits), 1);
  CHECK_EQ(show(kept({.logit_bias = {{0, -kInf}}}, logits)), "1 2 ");
  // Bias comes before the penalties: 2 + 2 = 4, halved to 2, is not above 2.5.
  CHECK_EQ(greedy({.repetition_penalty = 2, .logit_bias = {{0, 2}, {1, 1.5f}}}, logits, {0}), 1);
  const SamplingParams none{.logit_bias = {{0, -kInf}, {1, -kInf}, {2, -kInf}}};
  CHECK_THROWS(kept(none, logits), ErrorCode::kInvalidArg);
  CHECK_THROWS(greedy(none, logits), ErrorCode::kInvalidArg);
}

TEST("sampling: damaged logits are an error, never a token") {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float bad : {std::nanf(""), kInf}) {
      for (const size_t place : {0, 500, 999}) {
        std::vector<float> logits = shuffled_logits(1000);
        logits[place] = bad;
        Sampler sampler({.temperature = temperature, .top_k = 5}, 1000);
        CHECK_THROWS(sampler.sample(logits, {}, 17), ErrorCode::kModelFormat);
      }
    }
    Sampler sampler({.temperature = temperature}, 10);
    CHECK_THROWS(sampler.sample(std::vector<float>(10, -kInf), {}, 0), ErrorCode::kModelFormat);
    std::vector<float> one(10, -kInf);
    one[3] = -5;
    CHECK_EQ(sampler.sample(one, {}, 0).token, 3);
    CHECK_THROWS(sampler.sample(std::vector<float>(9, 0.0f), {}, 0), ErrorCode::kInternal);
  }
  try {
    Sampler({}, 2).sample(std::vector<float>{0, std::nanf("")}, {}, 4711);
  } catch (const Error& error) {
    CHECK(error.message().find("position 4711") != std::string::npos);
  }
  Sampler overflow({.repetition_penalty = 0.01f}, 2);
  CHECK_THROWS(overflow.sample(std::vector<float>{3e38f, 0}, std::vector<int32_t>{0}, 0),
               ErrorCode::kModelFormat);
}

TEST("sampling: tiny temperatures approach greedy without overflow") {
  const std::vector<float> logits = {70000, 70001, -3e38f};
  for (const float temperature : {1e-3f, 1e-10f, 1e-38f, 1e-45f})
    CHECK_EQ(show(kept({.temperature = temperature}, logits)), "1 ");
}

TEST("sampling: draws follow the distribution") {
  const std::vector<float> logits = {0, 1, 2, 0.5f, -1, 1.5f, -kInf, 0.25f};
  for (const uint64_t seed : {1u, 2u, 77u}) {
    Sampler sampler({.temperature = 0.9f, .seed = seed}, 8);
    const auto expected = sampler.distribution(logits, {}, 0);
    std::vector<double> seen(8);
    const int draws = 40000;
    for (int i = 0; i < draws; ++i) ++seen[size_t(sampler.sample(logits, {}, uint64_t(i)).token)];
    double chi_square = 0;
    for (const TokenProbability& token : expected) {
      const double mean = double(token.probability) * draws;
      chi_square += (seen[size_t(token.token)] - mean) * (seen[size_t(token.token)] - mean) / mean;
    }
    CHECK_EQ(seen[6], 0.0);
    CHECK(chi_square < 22.46);  // 6 degrees of freedom, p = 0.001
  }
}

TEST("sampling: a draw depends on seed and position alone") {
  const std::vector<float> logits = shuffled_logits(100);
  const auto draw = [&](uint64_t seed, uint64_t position) {
    return Sampler({.seed = seed}, 100).sample(logits, {}, position).token;
  };
  Sampler used({.seed = 5}, 100);
  for (uint64_t position = 50; position-- > 0;)
    CHECK_EQ(used.sample(logits, {}, position).token, draw(5, position));
  int seeds_differ = 0, positions_differ = 0;
  for (uint64_t i = 0; i < 50; ++i) {
    seeds_differ += draw(5, i) != draw(6, i);
    positions_differ += draw(5, i) != draw(5, i + 1);
  }
  CHECK(seeds_differ > 25 && positions_differ > 25);
  CHECK(draw(5, 1) != draw(5, 1 + (uint64_t{1} << 32)) || draw(5, 2) != draw(5, 2 + (uint64_t{1} << 32)));
}

TEST("sampling: log-probabilities are the model's own") {
  const std::vector<float> logits = {2, 5, 1, 5, -kInf};
  const SamplingParams params{.temperature = 0, .logit_bias = {{2, 100}}, .logprobs = 3};
  const Sampler::Sample sample = Sampler(params, 5).sample(logits, {}, 0);
  const double log_sum = std::log(std::exp(2.0) + 2 * std::exp(5.0) + std::exp(1.0));
  CHECK_EQ(sample.token, 2);
  CHECK(std::fabs(sample.logprob - (1 - log_sum)) < 1e-6);
  CHECK_EQ(sample.top.size(), 3u);
  CHECK_EQ(sample.top[0].token, 1);
  CHECK_EQ(sample.top[1].token, 3);
  CHECK_EQ(sample.top[2].token, 0);
  CHECK(std::fabs(sample.top[2].logprob - (2 - log_sum)) < 1e-6);
  CHECK(std::isnan(Sampler({}, 5).sample(logits, {}, 0).logprob));
}

TEST("sampling: options out of range are refused by name") {
  const auto refuse = [](SamplingParams params, const std::string& option) {
    try {
      Sampler sampler(std::move(params), 10);
    } catch (const Error& error) {
      CHECK_EQ(error_code_name(error.code()), std::string("ERR_INVALID_ARG"));
      if (error.message().find(option) == std::string::npos) fail(__FILE__, __LINE__, error.message());
      return;
    }
    fail(__FILE__, __LINE__, "accepted: " + option);
  };
  const float nan = std::nanf("");
  for (const float bad : {-0.1f, nan, kInf}) refuse({.temperature = bad}, "temperature");
  refuse({.top_k = -5}, "topK");
  for (const float bad : {-0.1f, 1.1f, nan}) refuse({.top_p = bad}, "topP");
  for (const float bad : {-0.1f, 1.1f, nan}) refuse({.min_p = bad}, "minP");
  for (const float bad : {0.0f, 1.1f, nan}) refuse({.typical_p = bad}, "typicalP");
  for (const float bad : {0.0f, -1.0f, nan, kInf}) refuse({.repetition_penalty = bad}, "repetitionPenalty");
  refuse({.last_n_tokens = -2}, "lastNTokens");
  for (const float bad : {nan, kInf}) refuse({.frequency_penalty = bad}, "frequencyPenalty");
  for (const float bad : {nan, -kInf}) refuse({.presence_penalty = bad}, "presencePenalty");
  for (const int32_t bad : {-1, 21}) refuse({.logprobs = bad}, "logprobs");
  for (const int32_t bad : {-1, 10}) refuse({.logit_bias = {{bad, 1}}}, "logitBias");
  for (const float bad : {nan, kInf, 1e9f}) refuse({.logit_bias = {{1, bad}}}, "logitBias");
}

namespace {

// The `n` highest logits, in an order of their own, and the highest of the others.
struct Top {
  Top(const std::vector<float>& all, size_t n) {
    for (size_t i = 0; i < all.size(); ++i) tokens.push_back(int32_t(i));
    std::stable_sort(tokens.begin(), tokens.end(),
                     [&](int32_t a, int32_t b) { return all[size_t(a)] > all[size_t(b)]; });
    if (n < all.size()) rest = all[size_t(tokens[n])];
    tokens.resize(std::min(n, all.size()));
    for (const int32_t token : tokens) logits.push_back(all[size_t(token)]);
  }
  TopLogits view() const { return {tokens, logits, rest}; }
  std::vector<int32_t> tokens;
  std::vector<float> logits;
  float rest = -kInf;
};

}  // namespace

TEST("sampling: the highest logits give the token that all of them give, or none") {
  constexpr int32_t kVocab = 2000;
  const std::vector<SamplingParams> all_params = {
      {.temperature = 0},
      {.temperature = 0, .repetition_penalty = 1.3f, .frequency_penalty = 0.4f},
      {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1.1f, .last_n_tokens = 64},
      {.temperature = 1.7f, .top_k = 20, .typical_p = 0.9f, .presence_penalty = 0.5f},
      {.temperature = 3.0f, .top_k = 60},  // the division makes scores equal that were not
      {.temperature = 1e-4f, .top_k = 50, .min_p = 0.01f},
      {.temperature = 0.9f, .min_p = 0.05f},
      {.temperature = 0.7f, .top_k = 5, .logit_bias = {{3, -kInf}, {7, -1.5f}, {1999, -kInf}}}};
  uint32_t state = 1;
  const auto random = [&] { return state = state * 1664525u + 1013904223u, double(state >> 8) * 0x1p-24; };
  for (SamplingParams params : all_params) {
    int decided = 0, undecided = 0;
    for (uint64_t position = 0; position < 300; ++position) {
      // Some rows with many equals, some peaked.
      std::vector<float> logits(kVocab);
      const double step = position % 3 == 0 ? 0.25 : 0, peak = position % 2 == 0 ? 6 : 1;
      for (float& logit : logits) {
        const double value = peak * -std::log(1e-6 + random());
        logit = float(step > 0 ? std::round(value / step) * step : value);
      }
      std::vector<int32_t> history;
      for (int i = 0; i < 80; ++i) history.push_back(int32_t(random() * kVocab));
      params.seed = position;
      Sampler sampler(params, kVocab);
      CHECK(sampler.draws_from_top());
      const Top top(logits, 128);
      const int32_t want = sampler.sample(logits, history, position).token;
      const auto got = sampler.sample(top.view(), history, position);
      CHECK(!got || got->token == want);
      ++(got ? decided : undecided);
    }
    CHECK(decided > 150);
    CHECK(undecided < 150);
  }
}

TEST("sampling: the highest logits decide nothing where another one might matter") {
  const std::vector<float> logits = {5, 4, 4, 3, 1, 1, 0, -1};
  const auto decides = [&](const SamplingParams& params, size_t n, std::vector<int32_t> history = {}) {
    return Sampler(params, 8).sample(Top(logits, n).view(), history, 0).has_value();
  };
  // All that are there, or more than there are.
  CHECK(decides({.top_k = 3}, 4) && decides({.top_k = 8}, 8) && decides({.top_k = 99}, 8));
  CHECK(!decides({.top_k = 5}, 4) && !decides({.top_k = 4}, 3));
  // An equal of the last one is left out.
  CHECK(!decides({.top_k = 2}, 2) && decides({.top_k = 2}, 3) && !decides({.top_k = 5}, 5));
  // A penalty brings the best ones below what is left out.
  const SamplingParams penalised{.temperature = 0, .presence_penalty = 5};
  CHECK(decides(penalised, 4) && decides(penalised, 4, {0}) && !decides(penalised, 4, {0, 1, 2, 3}));
  CHECK(decides({.temperature = 0, .logit_bias = {{0, -kInf}}}, 3) &&
        !decides({.temperature = 0, .logit_bias = {{0, -kInf}}}, 2));
  // Min-p against the likeliest: exp(-2) is 0.135.
  CHECK(decides({.min_p = 0.14f}, 3) && !decides({.min_p = 0.13f}, 3) && decides({.min_p = 0.13f}, 4));
  // A division by the temperature that overflows: the error is that of the whole row.
  const std::vector<float> huge = {3e37f, 2e37f, -3e38f}, low(3, -3e37f);
  for (const std::vector<float>& row : {huge, low})
    for (const SamplingParams& params : {SamplingParams{.temperature = 1e-3f, .top_k = 5},
                                         SamplingParams{.temperature = 1e-3f, .min_p = 0.1f}}) {
      Sampler sampler(params, 3);
      CHECK(!sampler.sample(Top(row, 3).view(), {}, 0));
      bool fails = false;
      try {
        sampler.sample(row, {}, 0);
      } catch (const Error&) {
        fails = true;
      }
      CHECK(fails);
    }
  // What raises scores, looks at all of them or tells them is never decided.
  for (const SamplingParams& params : std::vector<SamplingParams>{{},
                                                                  {.top_p = 0.5f},
                                                                  {.top_p = 0.5f, .min_p = 0.2f},
                                                                  {.top_k = 3, .repetition_penalty = 0.9f},
                                                                  {.top_k = 3, .frequency_penalty = -1},
                                                                  {.top_k = 3, .presence_penalty = -1},
                                                                  {.top_k = 3, .logit_bias = {{2, 1}}},
                                                                  {.top_k = 3, .logprobs = 1}}) {
    CHECK(!Sampler(params, 8).draws_from_top());
    CHECK(!decides(params, 8));
  }
  // Damaged logits are the whole row's error.
  for (const float bad : {kInf, std::nanf("")}) {
    const int32_t tokens[] = {2, 0};
    const float values[] = {bad, 1};
    CHECK(!Sampler({.temperature = 0}, 8).sample(TopLogits{tokens, values, 0}, {}, 0));
  }
  CHECK(!Sampler({.temperature = 0}, 8).sample(TopLogits{}, {}, 0));
}
