// SPDX-License-Identifier: Apache-2.0
// One instruction form against a scalar oracle: a kernel that loads up to four operands per thread,
// executes the form once under full and once under partial masks, and stores its result.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "ptx/ir.h"

namespace maestrale::ptxsim::test {

using Bits = uint64_t;
using Oracle = std::function<Bits(Bits a, Bits b, Bits c, Bits e)>;

struct Form {
  std::string text;          // "add.s32 d, a, b;" with operands named d, a, b, c, e
  Type d;                    // types of the operands in use; kPred is a predicate
  std::vector<Type> inputs;  // of a, b, c, e
  Oracle oracle;             // bits of the inputs (zero-extended) -> bits of d
  double tolerance = 0;      // for f32/f64 results: relative error allowed; 0: every bit
};

// Runs each form on edge values and random values of its input types; throws at the first difference.
void check_forms(const std::vector<Form>& forms);

// Values of one type that find mistakes: extremes, neighbours of powers of two, NaN, infinities.
std::vector<Bits> edge_values(Type type);

template <class T>
T as(Bits bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
Bits bits_of(T value) {
  Bits bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

}  // namespace maestrale::ptxsim::test
