// SPDX-License-Identifier: Apache-2.0
// printf goes to Launch::output; a failed assertion stops the kernel with its text.
#include "exec/supplied.h"

#include <cstdio>
#include <cstring>

#include "exec/memory.h"

namespace maestrale::ptxsim {
namespace {

template <class T>
T frame_value(const Warp& w, int lane, int64_t offset) {
  T value;
  std::memcpy(&value, w.frame.data() + lane * w.cta->launch->program->frame_bytes + offset, sizeof value);
  return value;
}

template <class T>
T generic_value(Warp& w, const Op& op, int lane, uint64_t address) {
  Lanes64 a{};
  a.v[lane] = address;
  T value{};
  by_space(Space::kGeneric, 1u << lane, a, [&](Space space, uint32_t here, const Lanes64& inside) {
    const Resolved r = resolve(w, op, here, space, inside, sizeof(T), AccessKind::kLoad);
    std::memcpy(&value, r.at[lane], sizeof value);
  });
  return value;
}

std::string string_at(Warp& w, const Op& op, int lane, uint64_t address) {
  std::string text;
  while (const char c = generic_value<char>(w, op, lane, address + text.size())) text += c;
  return text;
}

// The arguments lie behind each other, each at a multiple of its size; floats arrive as double.
std::string formatted(Warp& w, const Op& op, int lane, const std::string& format, uint64_t at) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const size_t end = format.find_first_of("diouxXcsfFeEgGaAp%", i + 1);
    if (end == format.npos) break;
    std::string spec = format.substr(i, end - i + 1);
    const char kind = format[end];
    i = end;
    char text[256];
    if (kind == '%') {
      out += '%';
      continue;
    }
    const bool is_long =
        spec.find('l') != spec.npos || kind == 's' || kind == 'p' || std::strchr("fFeEgGaA", kind);
    if (is_long) at = (at + 7) / 8 * 8;
    if (std::strchr("fFeEgGaA", kind)) {
      std::snprintf(text, sizeof text, spec.c_str(), generic_value<double>(w, op, lane, at));
    } else if (kind == 's') {
      std::snprintf(text, sizeof text, spec.c_str(),
                    string_at(w, op, lane, generic_value<uint64_t>(w, op, lane, at)).c_str());
    } else if (is_long) {
      std::snprintf(text, sizeof text, spec.c_str(), generic_value<uint64_t>(w, op, lane, at));
    } else {
      std::snprintf(text, sizeof text, spec.c_str(), generic_value<uint32_t>(w, op, lane, at));
    }
    at += is_long ? 8 : 4;
    out += text;
  }
  return out;
}

void print(Warp& w, const Op& op, uint32_t mask) {
  const CallSite& call = *op.call;
  const int64_t frame = w.cta->launch->program->frame_bytes;
  each_lane(mask, [&](int lane) {
    const std::string format = string_at(w, op, lane, frame_value<uint64_t>(w, lane, call.arguments[0].from));
    const std::string text =
        formatted(w, op, lane, format, frame_value<uint64_t>(w, lane, call.arguments[1].from));
    w.cta->launch->output += text;
    const int32_t count = int32_t(text.size());
    if (call.results.empty()) return;
    std::memcpy(w.frame.data() + lane * frame + call.results[0].to, &count, 4);
    std::memset(w.frame_written.data() + lane * frame + call.results[0].to, 1, 4);
  });
}

void assertion(Warp& w, const Op& op, uint32_t mask) {
  const CallSite& call = *op.call;
  const int lane = __builtin_ctz(mask);
  const auto text = [&](size_t k) {
    return string_at(w, op, lane, frame_value<uint64_t>(w, lane, call.arguments[k].from));
  };
  report(w, op, lane, FaultKind::kAssert,
         "assertion `" + text(0) + "` failed at " + text(1) + ":" +
             std::to_string(frame_value<uint32_t>(w, lane, call.arguments[2].from)));
}

}  // namespace

bool is_supplied(std::string_view name) { return name == "vprintf" || name == "__assertfail"; }
Handler supplied(std::string_view name) { return name == "vprintf" ? print : assertion; }

}  // namespace maestrale::ptxsim
