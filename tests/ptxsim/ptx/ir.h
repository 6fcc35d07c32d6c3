// SPDX-License-Identifier: Apache-2.0
// A PTX module as written: variables, functions, instructions with their modifiers still as text.
// Nothing here knows what an opcode means; exec/ gives the instructions their meaning.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace maestrale::ptxsim {

// What the PTX text does wrong, or what this simulator does not know; `line` counts from 1.
class PtxError : public std::runtime_error {
 public:
  PtxError(int line, const std::string& message)
      : std::runtime_error("line " + std::to_string(line) + ": " + message), line_(line) {}
  int line() const { return line_; }

 private:
  int line_;
};

enum class Type : uint8_t {
  kPred,
  kB8,
  kU8,
  kS8,
  kB16,
  kU16,
  kS16,
  kF16,
  kBf16,
  kB32,
  kU32,
  kS32,
  kF32,
  kF16x2,
  kBf16x2,
  kB64,
  kU64,
  kS64,
  kF64
};

inline std::optional<Type> type_named(std::string_view name) {
  static const std::map<std::string_view, Type> names = {
      {"pred", Type::kPred}, {"b8", Type::kB8},       {"u8", Type::kU8},         {"s8", Type::kS8},
      {"b16", Type::kB16},   {"u16", Type::kU16},     {"s16", Type::kS16},       {"f16", Type::kF16},
      {"bf16", Type::kBf16}, {"b32", Type::kB32},     {"u32", Type::kU32},       {"s32", Type::kS32},
      {"f32", Type::kF32},   {"f16x2", Type::kF16x2}, {"bf16x2", Type::kBf16x2}, {"b64", Type::kB64},
      {"u64", Type::kU64},   {"s64", Type::kS64},     {"f64", Type::kF64}};
  const auto found = names.find(name);
  if (found == names.end()) return std::nullopt;
  return found->second;
}

// Bytes of one value; 0 for predicates, which have no memory form.
inline int type_bytes(Type type) {
  if (type == Type::kPred) return 0;
  if (type <= Type::kS8) return 1;
  if (type <= Type::kBf16) return 2;
  return type <= Type::kBf16x2 ? 4 : 8;
}
inline bool is_signed(Type t) {
  return t == Type::kS8 || t == Type::kS16 || t == Type::kS32 || t == Type::kS64;
}
inline bool is_float(Type t) {
  return t == Type::kF16 || t == Type::kBf16 || t == Type::kF32 || t == Type::kF64 || t == Type::kF16x2 ||
         t == Type::kBf16x2;
}

enum class Space : uint8_t { kGeneric, kParam, kGlobal, kShared, kLocal, kConst };

// ".shared" -> Space::kShared
std::optional<Space> space_named(std::string_view directive);

struct Variable {
  std::string name;
  Space space = Space::kParam;
  Type type = Type::kB8;
  int align = 1;
  int64_t bytes = 0;
  bool unsized = false;  // .extern .shared x[]: as long as the launch says
  bool pointer = false;  // .ptr in a parameter list
  std::vector<uint8_t> bytes_of_initialiser;
  int line = 0;
};

struct Operand {
  enum Kind : uint8_t { kRegister, kInteger, kFloat, kDouble, kSymbol, kAddress, kVector, kSpecial, kSink };
  Kind kind = kInteger;
  int reg = -1;          // kRegister; base of kAddress, or -1
  int second = -1;       // the predicate after '|': d|p
  bool negated = false;  // !p
  uint64_t bits = 0;     // integer value or the bits of the literal
  int64_t offset = 0;    // kAddress, kSymbol
  std::string name;      // symbol or special register; base symbol of kAddress when reg is -1
  std::vector<Operand> elements;
};

struct Instruction {
  int line = 0;
  int source_line = 0;  // of the last .loc, 0 without one
  int guard = -1;
  bool guard_negated = false;
  int target = -1;  // index of the instruction a branch goes to
  std::string opcode;
  std::vector<std::string> modifiers;
  std::vector<Operand> operands;
};

struct Register {
  std::string name;
  int bytes = 0;  // 0: predicate
};

struct Function {
  std::string name;
  bool entry = false;
  bool defined = false;
  int line = 0;
  std::vector<Variable> returns, params;
  std::vector<Variable> variables;  // .local, .shared and .param declared inside
  std::vector<Register> registers;
  std::vector<Instruction> body;
  int max_threads = 0;  // product of .maxntid, 0 without one
  bool exact_threads = false;
  int required[3] = {0, 0, 0};  // .reqntid
};

struct Module {
  int version = 0;  // major * 10 + minor
  int target = 0;   // 80 for sm_80
  std::vector<Variable> variables;
  std::vector<Function> functions;

  const Function* function(std::string_view name) const {
    for (const Function& f : functions)
      if (f.name == name) return &f;
    return nullptr;
  }
};

// Throws PtxError.
Module parse_ptx(std::string_view text);

}  // namespace maestrale::ptxsim
