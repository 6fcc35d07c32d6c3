// SPDX-License-Identifier: Apache-2.0
// One automaton a stop string; each byte costs amortised constant time in each of them, so no text can
// make matching quadratic.
#include "sampling/stop_matcher.h"

#include <algorithm>

#include "base/error.h"

namespace maestrale {
namespace {

size_t advance(const std::string& stop, const std::vector<uint32_t>& fallback, size_t state, char byte) {
  while (state > 0 && stop[state] != byte) state = fallback[state];
  return stop[state] == byte ? state + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStops)
    throw Error(ErrorCode::kInvalidArg, "stop may hold " + std::to_string(kMaxStops) + " strings, not " +
                                            std::to_string(stops.size()) + ".");
  for (const std::string& stop : stops) {
    if (stop.empty()) throw Error(ErrorCode::kInvalidArg, "stop may not hold an empty string.");
    if (stop.size() > kMaxStopBytes)
      throw Error(ErrorCode::kInvalidArg, "A stop string may have " + std::to_string(kMaxStopBytes) +
                                              " bytes, not " + std::to_string(stop.size()) + ".");
    std::vector<uint32_t> fallback(stop.size() + 1, 0);
    for (size_t i = 1; i < stop.size(); ++i)
      fallback[i + 1] = uint32_t(advance(stop, fallback, fallback[i], stop[i]));
    automata_.push_back({stop, std::move(fallback), 0});
  }
}

bool StopMatcher::push(std::string_view text, std::string& out) {
  if (matched_ >= 0) return true;
  for (const char byte : text) {
    held_.push_back(byte);
    size_t longest = 0;
    for (size_t i = 0; i < automata_.size(); ++i) {
      Automaton& automaton = automata_[i];
      automaton.state = advance(automaton.stop, automaton.fallback, automaton.state, byte);
      if (automaton.state != automaton.stop.size() || automaton.state <= longest) continue;
      longest = automaton.state;
      matched_ = int(i);
    }
    if (matched_ < 0) continue;
    out.append(held_, 0, held_.size() - longest);
    held_.clear();
    return true;
  }
  size_t keep = 0;
  for (const Automaton& automaton : automata_) keep = std::max(keep, automaton.state);
  out.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void StopMatcher::flush(std::string& out) {
  if (matched_ < 0) out.append(held_);
  held_.clear();
}

}  // namespace maestrale
