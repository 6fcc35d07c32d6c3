// SPDX-License-Identifier: Apache-2.0
// Turns the instructions of an entry and of the functions it calls into one Program. Each opcode has
// a decode function, found by name; it takes the modifiers it knows in the order PTX writes them, and
// whatever is left over is an error.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "exec/op.h"
#include "ptx/ir.h"

namespace maestrale::ptxsim {

// Modifiers of one instruction, taken from left to right.
class Modifiers {
 public:
  explicit Modifiers(const Instruction& i) : i_(i) {}
  bool accept(std::string_view name) {
    if (at_ >= i_.modifiers.size() || i_.modifiers[at_] != name) return false;
    ++at_;
    return true;
  }
  void expect(std::string_view name) {
    if (!accept(name)) unknown();
  }
  Type type() {
    if (at_ < i_.modifiers.size())
      if (const auto type = type_named(i_.modifiers[at_])) return ++at_, *type;
    unknown();
  }
  std::string take() {
    if (at_ >= i_.modifiers.size()) unknown();
    return i_.modifiers[at_++];
  }
  std::string peek() const { return at_ < i_.modifiers.size() ? i_.modifiers[at_] : ""; }
  void end() const {
    if (at_ != i_.modifiers.size()) unknown();
  }
  [[noreturn]] void unknown() const;

 private:
  const Instruction& i_;
  size_t at_ = 0;
};

class Decoder;
using Decode = void (*)(Decoder&, const Instruction&, Op&);
using Opcodes = std::map<std::string, Decode, std::less<>>;

class Decoder {
 public:
  // address(name) is the device address of a .global or .const variable.
  Decoder(const Module& module, std::function<uint64_t(const std::string&)> address);
  Program decode(const Function& entry);

  // ---- for the decode functions --------------------------------------------------------------
  // Slots of operands. The width of the register must be that of `type` unless `wider` allows more.
  uint32_t source(const Operand& o, Type type, bool wider = false);
  uint32_t destination(const Operand& o, Type type, bool wider = false);
  uint32_t predicate(const Operand& o);
  uint32_t predicate_register(int reg);
  int register_bytes(const Operand& o) const;
  uint32_t constant(uint64_t bits, int bytes);
  uint32_t carry_slot();  // one lane mask per program
  // Base register and offset of an [address].
  void address(const Operand& o, Access& access);
  Access& new_access(Op& op);
  Fragments& new_fragments(Op& op);
  CallSite& new_call(Op& op);
  void operands(const Instruction& i, size_t count) const;
  int64_t frame_offset(const std::string& variable);  // of a call parameter
  const Function& callee(const Instruction& i, const std::string& name);
  int64_t formal_offset(const Function& f, const Variable& v);
  [[noreturn]] void fail(const std::string& message) const;

 private:
  struct Placed {
    uint64_t address;
    Space space;
  };
  void place_shared(const Function& entry);
  void layout_params(const Function& entry);
  void decode_function(const Function& f);
  uint32_t register_slot(int reg);
  uint32_t allocate(int bytes);
  uint64_t symbol(const std::string& name, int64_t offset);
  void refuse_recursion() const;

  const Module& module_;
  std::function<uint64_t(const std::string&)> address_;
  Program program_;
  uint32_t carry_ = kNoSlot;
  const Function* function_ = nullptr;
  const Instruction* instruction_ = nullptr;
  std::vector<uint32_t> slots_;  // of the registers of function_
  std::map<std::pair<uint64_t, int>, uint32_t> constants_;
  std::map<std::string, uint32_t> specials_;
  std::map<std::string, Placed> symbols_;      // of the entry and, while it is decoded, of function_
  std::map<std::string, int> function_start_;  // first op of a decoded function
  std::map<std::pair<const Function*, std::string>, int64_t> formals_;  // frame offsets
  std::set<std::pair<const Function*, const Function*>> edges_;         // caller, callee
  std::vector<std::pair<const Function*, std::vector<int>>> wanted_;  // functions and the ops that call them
};

// Addresses of parameters of called functions start here, in the parameter space.
inline constexpr uint64_t kFrameParams = uint64_t{1} << 32;

const Opcodes& all_opcodes();
void add_integer(Opcodes&);
void add_bits(Opcodes&);
void add_float(Opcodes&);
void add_compare(Opcodes&);
void add_convert(Opcodes&);
void add_move(Opcodes&);
void add_memory(Opcodes&);
void add_atomic(Opcodes&);
void add_control(Opcodes&);
void add_warp_ops(Opcodes&);
void add_async(Opcodes&);
void add_matrix(Opcodes&);

// Sets `reconverge` of every branch in ops[begin, end).
void find_reconvergence(std::vector<Op>& ops, int begin, int end);

}  // namespace maestrale::ptxsim
