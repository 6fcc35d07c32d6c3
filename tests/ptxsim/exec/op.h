// SPDX-License-Identifier: Apache-2.0
// A decoded instruction and the program it belongs to. All operands are byte offsets into a warp's
// register file: constants and special registers have slots there too, so that every handler has one
// path. A slot holds 32 lanes side by side; a predicate is one 32-bit lane mask.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "ptx/ir.h"

namespace maestrale::ptxsim {

struct Warp;
struct Op;
using Handler = void (*)(Warp&, const Op&, uint32_t mask);

enum class Flow : uint8_t {
  kNone,
  kBranch,
  kCall,
  kReturn,
  kExit,
  kCollective,   // all lanes of the member mask must be at this very instruction (src[3] = mask slot)
  kWarpBarrier,  // bar.warp.sync: lanes may wait at different ones (src[3] = mask slot)
  kCtaBarrier,   // bar.*, barrier.*
  kYield,        // other warps get a chance after it: atomics, fences, volatile accesses
};

inline constexpr uint32_t kNoSlot = 0xffffffffu;

// Loads, stores, atomics, copies: what the address and the values look like.
struct Access {
  Space space = Space::kGeneric;
  uint8_t bytes = 4;           // of one element in memory
  uint8_t count = 1;           // elements of the vector
  uint8_t register_bytes = 4;  // of one value register
  bool sign_extend = false;
  bool is_volatile = false;
  bool base_is_32_bits = false;
  uint32_t base = kNoSlot;  // slot of the address register
  int64_t offset = 0;
  uint32_t values[8] = {};
  // cp.async: the source of the copy
  uint32_t source = kNoSlot;
  int64_t source_offset = 0;
  uint32_t source_bytes = kNoSlot;
};

// The register lists of ldmatrix and mma.
struct Fragments {
  uint32_t d[8] = {}, a[8] = {}, b[8] = {}, c[8] = {};
  int n = 0;
};

struct CallSite {
  struct Copy {
    int32_t from, to, bytes;  // frame offsets
  };
  std::string callee;  // of functions that the simulator supplies itself
  std::vector<Copy> arguments, results;
};

struct Op {
  Handler run = nullptr;
  uint32_t dst = kNoSlot, dst2 = kNoSlot;
  uint32_t src[4] = {kNoSlot, kNoSlot, kNoSlot, kNoSlot};
  uint32_t guard = kNoSlot;
  uint32_t guard_flip = 0;  // all ones for @!p
  Flow flow = Flow::kNone;
  uint8_t variant = 0;  // meaning is the handler's own
  int32_t target = -1;
  int32_t reconverge = -1;  // immediate post-dominator of a branch
  int64_t imm = 0;
  int32_t line = 0, source_line = 0;
  const Access* access = nullptr;
  const Fragments* fragments = nullptr;
  const CallSite* call = nullptr;
};

// Where the parameters of an entry lie in its parameter buffer.
struct ParamLayout {
  int64_t offset, bytes;
};

struct Program {
  struct Constant {
    uint32_t slot;
    uint8_t bytes;
    uint64_t bits;
  };
  struct Special {
    uint32_t slot;
    std::string name;
  };
  std::string name;
  std::vector<Op> ops;
  std::deque<Access> accesses;
  std::deque<Fragments> fragments;
  std::deque<CallSite> calls;
  std::vector<Constant> constants;
  std::vector<Special> specials;
  uint32_t register_bytes = 0;
  int64_t shared_bytes = 0;       // static
  int64_t dynamic_shared_at = 0;  // offset where the launch's dynamic part begins
  int64_t frame_bytes = 0;        // local memory of one thread, call parameters included
  std::vector<ParamLayout> params;
  int64_t param_bytes = 0;
  int max_threads = 1024;
  int required[3] = {0, 0, 0};
};

}  // namespace maestrale::ptxsim
