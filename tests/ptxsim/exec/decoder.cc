// SPDX-License-Identifier: Apache-2.0
// Slots, symbols and the order of functions in a Program. Functions are inlined into the program of
// each entry that reaches them; recursion would need a stack of registers and is refused.
#include "exec/decoder.h"

#include <algorithm>
#include <bit>

#include "exec/supplied.h"

namespace maestrale::ptxsim {
namespace {

int64_t round_up(int64_t value, int64_t align) { return (value + align - 1) / align * align; }

}  // namespace

void Modifiers::unknown() const {
  std::string text = i_.opcode;
  for (const std::string& m : i_.modifiers) text += "." + m;
  throw PtxError(i_.line, at_ < i_.modifiers.size()
                              ? "unknown modifier '." + i_.modifiers[at_] + "' in '" + text + "'"
                              : "'" + text + "' lacks a modifier");
}

const Opcodes& all_opcodes() {
  static const Opcodes opcodes = [] {
    Opcodes all;
    for (auto add : {add_integer, add_bits, add_float, add_compare, add_convert, add_move, add_memory,
                     add_atomic, add_control, add_warp_ops, add_async, add_matrix})
      add(all);
    return all;
  }();
  return opcodes;
}

Decoder::Decoder(const Module& module, std::function<uint64_t(const std::string&)> address)
    : module_(module), address_(std::move(address)) {}

void Decoder::fail(const std::string& message) const {
  throw PtxError(instruction_ ? instruction_->line : function_ ? function_->line : 0, message);
}

void Decoder::operands(const Instruction& i, size_t count) const {
  if (i.operands.size() != count)
    fail("'" + i.opcode + "' takes " + std::to_string(count) + " operands here, not " +
         std::to_string(i.operands.size()));
}

uint32_t Decoder::allocate(int bytes) {
  const uint32_t slot = program_.register_bytes;
  program_.register_bytes += uint32_t(bytes == 0 ? 64 : bytes * 32);
  return slot;
}

uint32_t Decoder::register_slot(int reg) {
  uint32_t& slot = slots_[size_t(reg)];
  if (slot == kNoSlot) slot = allocate(function_->registers[size_t(reg)].bytes);
  return slot;
}

uint32_t Decoder::constant(uint64_t bits, int bytes) {
  if (bytes < 8) bits &= (uint64_t{1} << (8 * bytes)) - 1;
  const auto [found, fresh] = constants_.emplace(std::pair{bits, bytes}, 0);
  if (fresh) {
    found->second = allocate(std::max(bytes, 2));
    program_.constants.push_back({found->second, uint8_t(std::max(bytes, 2)), bits});
  }
  return found->second;
}

uint32_t Decoder::carry_slot() {
  if (carry_ == kNoSlot) carry_ = allocate(0);
  return carry_;
}

int Decoder::register_bytes(const Operand& o) const {
  return o.kind == Operand::kRegister ? function_->registers[size_t(o.reg)].bytes : 0;
}

uint32_t Decoder::predicate_register(int reg) {
  if (reg < 0 || function_->registers[size_t(reg)].bytes != 0) fail("expected a predicate");
  return register_slot(reg);
}

uint32_t Decoder::predicate(const Operand& o) {
  if (o.kind == Operand::kInteger && o.bits <= 1) return constant(o.bits ? 0xffffffffu : 0, 4);
  if (o.kind == Operand::kSink) return allocate(0);
  if (o.kind != Operand::kRegister) fail("expected a predicate");
  return predicate_register(o.reg);
}

uint32_t Decoder::source(const Operand& o, Type type, bool wider) {
  if (type == Type::kPred) return predicate(o);
  const int bytes = type_bytes(type);
  if (o.negated) fail("only predicates can be negated");
  switch (o.kind) {
    case Operand::kRegister: {
      const int have = function_->registers[size_t(o.reg)].bytes;
      if (have != bytes && !(wider && have > bytes))
        fail("register '" + function_->registers[size_t(o.reg)].name + "' has " + std::to_string(have * 8) +
             " bits, the instruction works on " + std::to_string(bytes * 8));
      return register_slot(o.reg);
    }
    case Operand::kInteger:
      if (is_float(type) && bytes > 2 && o.bits != 0) fail("an integer where a float is expected");
      return constant(o.bits, bytes);
    case Operand::kFloat:
      if (type == Type::kF64)
        return constant(std::bit_cast<uint64_t>(double(std::bit_cast<float>(uint32_t(o.bits)))), 8);
      if (bytes != 4)
        fail("a 32-bit float literal where " + std::to_string(bytes * 8) + " bits are expected");
      return constant(o.bits, 4);
    case Operand::kDouble:
      if (type == Type::kF32)
        return constant(std::bit_cast<uint32_t>(float(std::bit_cast<double>(o.bits))), 4);
      if (bytes != 8)
        fail("a 64-bit float literal where " + std::to_string(bytes * 8) + " bits are expected");
      return constant(o.bits, 8);
    case Operand::kSymbol: return constant(symbol(o.name, o.offset), bytes);
    case Operand::kSpecial: {
      if (o.name == "WARP_SZ") return constant(32, bytes);
      if (bytes != 4 &&
          !(bytes == 8 && (o.name == "%clock64" || o.name == "%globaltimer" || o.name == "%gridid")))
        fail("'" + o.name + "' has another width");
      const auto [found, fresh] = specials_.emplace(o.name, 0);
      if (fresh) {
        found->second = allocate(bytes);
        program_.specials.push_back({found->second, o.name});
      }
      return found->second;
    }
    default: fail("this operand is no value");
  }
}

uint32_t Decoder::destination(const Operand& o, Type type, bool wider) {
  if (o.kind == Operand::kSink) return allocate(std::max(type_bytes(type), 2));
  if (o.kind != Operand::kRegister || o.negated) fail("a destination must be a register");
  return source(o, type, wider);
}

uint64_t Decoder::symbol(const std::string& name, int64_t offset) {
  const auto found = symbols_.find(name);
  if (found != symbols_.end()) return found->second.address + uint64_t(offset);
  for (const Variable& v : module_.variables)
    if (v.name == name) return address_(name) + uint64_t(offset);
  fail("unknown symbol '" + name + "'");
}

void Decoder::address(const Operand& o, Access& access) {
  if (o.kind != Operand::kAddress) fail("expected an [address]");
  access.offset = o.offset;
  if (o.reg >= 0) {
    const int bytes = function_->registers[size_t(o.reg)].bytes;
    if (bytes != 4 && bytes != 8) fail("an address register has 32 or 64 bits");
    access.base = register_slot(o.reg);
    access.base_is_32_bits = bytes == 4;
  } else {
    access.base = constant(o.name.empty() ? 0 : symbol(o.name, 0), 8);
  }
}

Access& Decoder::new_access(Op& op) {
  op.access = &program_.accesses.emplace_back();
  return program_.accesses.back();
}

Fragments& Decoder::new_fragments(Op& op) {
  op.fragments = &program_.fragments.emplace_back();
  return program_.fragments.back();
}

CallSite& Decoder::new_call(Op& op) {
  op.call = &program_.calls.emplace_back();
  return program_.calls.back();
}

int64_t Decoder::frame_offset(const std::string& variable) {
  const auto found = symbols_.find(variable);
  if (found == symbols_.end() || found->second.space != Space::kParam || found->second.address < kFrameParams)
    fail("'" + variable + "' is no call parameter");
  return int64_t(found->second.address - kFrameParams);
}

const Function& Decoder::callee(const Instruction&, const std::string& name) {
  const Function* f = module_.function(name);
  if (!f) fail("call of an unknown function '" + name + "'");
  if (is_supplied(name)) return *f;
  if (!f->defined) fail("function '" + name + "' has no body");
  edges_.emplace(function_, f);
  const int op = int(program_.ops.size());
  for (auto& [known, calls] : wanted_)
    if (known == f) return calls.push_back(op), *f;
  wanted_.push_back({f, {op}});
  return *f;
}

int64_t Decoder::formal_offset(const Function& f, const Variable& v) {
  const auto found = formals_.find({&f, v.name});
  if (found != formals_.end()) return found->second;
  program_.frame_bytes = round_up(program_.frame_bytes, std::max(v.align, 4));
  const int64_t at = program_.frame_bytes;
  program_.frame_bytes += v.bytes;
  formals_[{&f, v.name}] = at;
  return at;
}

void Decoder::layout_params(const Function& entry) {
  int64_t at = 0;
  for (const Variable& v : entry.params) {
    at = round_up(at, v.align);
    program_.params.push_back({at, v.bytes});
    symbols_[v.name] = {uint64_t(at), Space::kParam};
    at += v.bytes;
  }
  if (at > 4096 && module_.version < 81) fail("more than 4096 bytes of parameters");
  program_.param_bytes = at;
}

void Decoder::place_shared(const Function& entry) {
  int64_t at = 0;
  const auto place = [&](const Variable& v) {
    if (v.space != Space::kShared || v.unsized) return;
    at = round_up(at, v.align);
    symbols_[v.name] = {uint64_t(at), Space::kShared};
    at += v.bytes;
  };
  for (const Variable& v : module_.variables) place(v);
  for (const Function& f : module_.functions)
    if (&f == &entry || !f.entry)
      for (const Variable& v : f.variables) place(v);
  program_.shared_bytes = at;
  program_.dynamic_shared_at = round_up(at, 16);
  for (const Variable& v : module_.variables)
    if (v.space == Space::kShared && v.unsized) {
      if (v.align > 16) program_.dynamic_shared_at = round_up(program_.dynamic_shared_at, v.align);
      symbols_[v.name] = {uint64_t(program_.dynamic_shared_at), Space::kShared};
    }
  for (const Variable& v : module_.variables)  // all of them name the same memory
    if (v.space == Space::kShared && v.unsized)
      symbols_[v.name].address = uint64_t(program_.dynamic_shared_at);
}

void Decoder::decode_function(const Function& f) {
  function_ = &f;
  slots_.assign(f.registers.size(), kNoSlot);
  const auto outer = symbols_;
  for (const Variable& v : f.variables) {
    if (v.space == Space::kShared) continue;
    if (v.space != Space::kLocal && v.space != Space::kParam)
      fail("'" + v.name + "' cannot be declared here");
    program_.frame_bytes = round_up(program_.frame_bytes, std::max(v.align, 4));
    const bool local = v.space == Space::kLocal;
    symbols_[v.name] = {uint64_t(program_.frame_bytes) + (local ? 0 : kFrameParams), v.space};
    program_.frame_bytes += v.bytes;
  }
  if (!f.entry)
    for (const auto* list : {&f.params, &f.returns})
      for (const Variable& v : *list)
        symbols_[v.name] = {kFrameParams + uint64_t(formal_offset(f, v)), Space::kParam};
  const int begin = int(program_.ops.size());
  function_start_[f.name] = begin;
  const int end = begin + int(f.body.size());
  for (const Instruction& i : f.body) {
    instruction_ = &i;
    Op op;
    op.line = i.line;
    op.source_line = i.source_line;
    if (i.guard >= 0) {
      op.guard = predicate_register(i.guard);
      op.guard_flip = i.guard_negated ? kNoSlot : 0;
    }
    if (i.target >= 0) op.target = begin + i.target;
    const auto decode = all_opcodes().find(i.opcode);
    if (decode == all_opcodes().end()) fail("unknown opcode '" + i.opcode + "'");
    decode->second(*this, i, op);
    // A `ret` inside a called function goes to its one end, where its lanes meet again.
    if (op.flow == Flow::kReturn && !f.entry) op.flow = Flow::kBranch, op.target = end;
    if (op.flow == Flow::kReturn) op.flow = Flow::kExit;
    program_.ops.push_back(op);
  }
  instruction_ = nullptr;
  Op last;
  last.line = f.body.empty() ? f.line : f.body.back().line;
  last.flow = f.entry ? Flow::kExit : Flow::kReturn;
  program_.ops.push_back(last);
  find_reconvergence(program_.ops, begin, end + 1);
  symbols_ = outer;
}

// Takes away, again and again, the functions that call none that is left.
void Decoder::refuse_recursion() const {
  auto edges = edges_;
  for (bool changed = true; changed;) {
    const auto is_leaf = [&](const auto& edge) {
      return std::none_of(edges.begin(), edges.end(), [&](const auto& e) { return e.first == edge.second; });
    };
    std::set<std::pair<const Function*, const Function*>> rest;
    for (const auto& edge : edges)
      if (!is_leaf(edge)) rest.insert(edge);
    changed = rest.size() != edges.size();
    edges = std::move(rest);
  }
  if (edges.empty()) return;
  const Function* f = edges.begin()->second;
  throw PtxError(f->line, "'" + f->name + "' calls itself; recursion is not supported");
}

Program Decoder::decode(const Function& entry) {
  program_ = Program();
  program_.name = entry.name;
  carry_ = kNoSlot;
  constants_.clear();
  specials_.clear();
  symbols_.clear();
  function_start_.clear();
  wanted_.clear();
  edges_.clear();
  formals_.clear();
  function_ = &entry;
  if (entry.max_threads) program_.max_threads = entry.max_threads;
  for (int i = 0; i < 3; ++i) program_.required[i] = entry.required[i];
  layout_params(entry);
  place_shared(entry);
  decode_function(entry);
  for (size_t i = 0; i < wanted_.size(); ++i) {  // decoding may add to the list
    const Function* f = wanted_[i].first;
    decode_function(*f);
  }
  refuse_recursion();
  for (const auto& [f, calls] : wanted_)
    for (const int op : calls) program_.ops[size_t(op)].target = function_start_[f->name];
  program_.frame_bytes = round_up(program_.frame_bytes, 16);
  return std::move(program_);
}

}  // namespace maestrale::ptxsim
