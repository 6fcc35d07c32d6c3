// SPDX-License-Identifier: Apache-2.0
// What stops a kernel: an illegal access, a check that found misuse, a trap. The driver turns the kind
// into an error code; the text says which thread did what where.
#pragma once

#include <stdexcept>
#include <string>

namespace maestrale::ptxsim {

enum class FaultKind {
  kOutOfBounds,
  kMisaligned,
  kUninitialised,
  kRace,
  kBarrier,   // divergent or mismatched CTA barriers
  kWarpSync,  // member masks and the lanes that come to a .sync instruction disagree
  kDeadlock,
  kTrap,
  kAssert,
  kArguments,
};

class Fault : public std::runtime_error {
 public:
  Fault(FaultKind kind, const std::string& text) : std::runtime_error(text), kind_(kind) {}
  FaultKind kind() const { return kind_; }

 private:
  FaultKind kind_;
};

}  // namespace maestrale::ptxsim
