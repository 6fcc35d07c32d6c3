// SPDX-License-Identifier: Apache-2.0
// Function bodies: declarations, labels, instructions, nested scopes of inline assembly whose names
// shadow outer ones. Branch targets are resolved to instruction numbers here.
#include <cstring>
#include <unordered_map>

#include "ptx/parser.h"

namespace maestrale::ptxsim {
namespace {

struct Scope {
  std::unordered_map<std::string, int> registers;
  std::unordered_map<std::string, std::string> variables;  // name -> unique name
  std::unordered_map<std::string, int> labels;
  size_t first_instruction = 0;
};

bool is_special(std::string_view name) {
  static const std::string_view names[] = {"%tid.",
                                           "%ntid.",
                                           "%ctaid.",
                                           "%nctaid.",
                                           "%laneid",
                                           "%warpid",
                                           "%nwarpid",
                                           "%smid",
                                           "%nsmid",
                                           "%gridid",
                                           "%clock",
                                           "%globaltimer",
                                           "%lanemask_",
                                           "%dynamic_smem_size",
                                           "%total_smem_size",
                                           "WARP_SZ"};
  for (const std::string_view known : names)
    if (name.starts_with(known)) return true;
  return false;
}

class Body {
 public:
  Body(Cursor& in, Function& f) : in_(in), f_(f) {}

  void parse() {
    open();
    while (!scopes_.empty()) {
      if (in_.at_end()) in_.fail("the body of '" + f_.name + "' is not closed");
      statement();
    }
    for (const Instruction& i : f_.body)
      if (i.opcode == "bra" && i.target < 0)
        throw PtxError(i.line, "branch to an unknown label '" + i.operands.at(0).name + "'");
  }

 private:
  void open() { scopes_.push_back({{}, {}, {}, f_.body.size()}); }

  void close() {
    const Scope& scope = scopes_.back();
    for (size_t i = scope.first_instruction; i < f_.body.size(); ++i) {
      Instruction& instruction = f_.body[i];
      if (instruction.opcode != "bra" || instruction.target >= 0) continue;
      const auto label = scope.labels.find(instruction.operands.at(0).name);
      if (label != scope.labels.end()) instruction.target = label->second;
    }
    scopes_.pop_back();
  }

  void statement() {
    if (in_.accept("{")) return open();
    if (in_.accept("}")) return close();
    if (in_.accept(";")) return;
    if (in_.peek().text.starts_with(".") && in_.peek().kind == Token::kWord) return directive();
    if (in_.peek().kind == Token::kWord && in_.peek(1).kind == Token::kMark && in_.peek(1).text == ":") {
      const std::string label = in_.word();
      in_.next();
      if (!scopes_.back().labels.emplace(label, int(f_.body.size())).second)
        in_.fail("label '" + label + "' is defined twice");
      return;
    }
    instruction();
  }

  void directive() {
    const std::string word = in_.word();
    if (word == ".reg") return registers();
    if (word == ".loc") {
      in_.integer();
      source_line_ = int(in_.integer());
      in_.integer();
      while (in_.accept(",")) {  // function_name L [+ n], inlined_at file line column
        while (in_.peek().kind == Token::kWord && in_.line() == in_.peek(1).line &&
               !in_.peek(1).text.starts_with(".") && in_.peek(1).kind == Token::kWord)
          in_.next();
        in_.next();
        if (in_.accept("+")) in_.next();
      }
      return;
    }
    if (word == ".pragma") {
      in_.next();
      return in_.expect(";");
    }
    const auto space = space_named(word);
    if (!space) in_.fail("unknown directive '" + word + "'");
    Variable v = parse_variable(in_, *space);
    in_.expect(";");
    std::string unique = v.name;
    if (scopes_.size() > 1) unique += "@" + std::to_string(f_.variables.size());
    scopes_.back().variables[v.name] = unique;
    v.name = unique;
    f_.variables.push_back(std::move(v));
  }

  void registers() {
    const std::string type_word = in_.word();
    const auto type = type_named(std::string_view(type_word).substr(1));
    if (!type || type_bytes(*type) == 1) in_.fail("registers of type '" + type_word + "' are not known");
    const int bytes = type_bytes(*type);
    do {
      const std::string name = in_.word();
      if (in_.accept("<")) {
        const int64_t count = in_.integer();
        in_.expect(">");
        for (int64_t i = 0; i < count; ++i) add_register(name + std::to_string(i), bytes);
      } else {
        add_register(name, bytes);
      }
    } while (in_.accept(","));
    in_.expect(";");
  }

  void add_register(const std::string& name, int bytes) {
    scopes_.back().registers[name] = int(f_.registers.size());
    f_.registers.push_back({name, bytes});
  }

  int find_register(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i].registers.find(name);
      if (found != scopes_[i].registers.end()) return found->second;
    }
    return -1;
  }

  std::string find_variable(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      const auto found = scopes_[i].variables.find(name);
      if (found != scopes_[i].variables.end()) return found->second;
    }
    return name;
  }

  void instruction() {
    Instruction i;
    i.line = in_.line();
    i.source_line = source_line_;
    if (in_.accept("@")) {
      i.guard_negated = in_.accept("!");
      const std::string name = in_.word();
      i.guard = find_register(name);
      if (i.guard < 0 || f_.registers[size_t(i.guard)].bytes != 0) in_.fail("'" + name + "' is no predicate");
    }
    std::string text = in_.word();
    for (size_t begin = 0; begin <= text.size();) {
      const size_t dot = std::min(text.find('.', begin), text.size());
      const std::string part = text.substr(begin, dot - begin);
      if (begin == 0)
        i.opcode = part;
      else
        i.modifiers.push_back(part);
      begin = dot + 1;
    }
    while (!in_.at(";")) {
      i.operands.push_back(operand());
      if (!in_.accept(",")) break;
    }
    in_.expect(";");
    f_.body.push_back(std::move(i));
  }

  Operand group(const char* end) {
    Operand o;
    o.kind = Operand::kVector;
    if (in_.accept(end)) return o;
    do o.elements.push_back(operand());
    while (in_.accept(","));
    in_.expect(end);
    return o;
  }

  Operand operand() {
    if (in_.accept("{")) return group("}");
    if (in_.accept("(")) return group(")");
    if (in_.accept("[")) return address();
    Operand o;
    if (in_.accept("!")) {
      o = operand();
      o.negated = true;
      return o;
    }
    if (in_.at("-")) {
      o.bits = uint64_t(in_.integer());
      return o;
    }
    const int line = in_.line();
    const std::string word = in_.word();
    if (word == "_") {
      o.kind = Operand::kSink;
    } else if (word.starts_with("0f") || word.starts_with("0F")) {
      o.kind = Operand::kFloat;
      o.bits = parse_integer("0x" + word.substr(2), line);
    } else if (word.starts_with("0d") || word.starts_with("0D")) {
      o.kind = Operand::kDouble;
      o.bits = parse_integer("0x" + word.substr(2), line);
    } else if (word[0] >= '0' && word[0] <= '9') {
      o.bits = parse_integer(word, line);
    } else if (const int reg = find_register(word); reg >= 0) {
      o.kind = Operand::kRegister;
      o.reg = reg;
    } else if (is_special(word)) {
      o.kind = Operand::kSpecial;
      o.name = word;
    } else if (word[0] == '%') {
      throw PtxError(line, "unknown register '" + word + "'");
    } else {
      o.kind = Operand::kSymbol;
      o.name = find_variable(word);
      if (in_.accept("+")) o.offset = in_.integer();
    }
    if (in_.accept("|")) {
      const std::string name = in_.word();
      o.second = find_register(name);
      if (o.second < 0) throw PtxError(line, "unknown register '" + name + "'");
    }
    return o;
  }

  Operand address() {
    Operand o = operand();
    if (o.kind == Operand::kRegister) {
      if (in_.accept("+")) o.offset = in_.integer();
    } else if (o.kind == Operand::kInteger) {
      o.offset = int64_t(o.bits);
    } else if (o.kind != Operand::kSymbol) {
      in_.fail("an address is a register, a symbol or a number");
    }
    if (in_.at("-")) o.offset += in_.integer();
    in_.expect("]");
    o.kind = Operand::kAddress;
    return o;
  }

  Cursor& in_;
  Function& f_;
  std::vector<Scope> scopes_;
  int source_line_ = 0;
};

}  // namespace

void parse_body(Cursor& in, Function& function) { Body(in, function).parse(); }

}  // namespace maestrale::ptxsim
