// SPDX-License-Identifier: Apache-2.0
// The module level of PTX: version, target, variables, function headers.
#include "ptx/parser.h"

#include <cstring>

namespace maestrale::ptxsim {

uint64_t parse_integer(std::string_view word, int line) {
  std::string_view digits = word;
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.starts_with("0b") || digits.starts_with("0B")) {
    base = 2;
    digits.remove_prefix(2);
  } else if (digits.size() > 1 && digits[0] == '0') {
    base = 8;
    digits.remove_prefix(1);
  }
  if (digits.ends_with('U')) digits.remove_suffix(1);
  uint64_t value = 0;
  if (digits.empty()) throw PtxError(line, "'" + std::string(word) + "' is no integer");
  for (const char c : digits) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;
    if (digit >= base) throw PtxError(line, "'" + std::string(word) + "' is no integer");
    value = value * uint64_t(base) + uint64_t(digit);
  }
  return value;
}

int64_t Cursor::integer() {
  const bool negative = accept("-");
  const int at_line = line();
  const uint64_t value = parse_integer(word(), at_line);
  return int64_t(negative ? 0 - value : value);
}

std::optional<Space> space_named(std::string_view directive) {
  if (directive == ".param") return Space::kParam;
  if (directive == ".global") return Space::kGlobal;
  if (directive == ".shared") return Space::kShared;
  if (directive == ".local") return Space::kLocal;
  if (directive == ".const") return Space::kConst;
  return std::nullopt;
}

namespace {

void append_value(std::vector<uint8_t>& bytes, Cursor& in, Type type) {
  uint64_t bits = 0;
  const int size = type_bytes(type);
  const std::string_view text = in.peek().text;
  if (text.starts_with("0f") || text.starts_with("0F")) {
    bits = parse_integer("0x" + std::string(text.substr(2)), in.line());
    in.next();
  } else if (text.starts_with("0d") || text.starts_with("0D")) {
    bits = parse_integer("0x" + std::string(text.substr(2)), in.line());
    in.next();
  } else if (is_float(type)) {
    in.fail("a float initialiser must be written in hexadecimal (0f..., 0d...)");
  } else {
    bits = uint64_t(in.integer());
  }
  for (int i = 0; i < size; ++i) bytes.push_back(uint8_t(bits >> (8 * i)));
}

void parse_initialiser(Cursor& in, Variable& variable) {
  if (in.accept("{")) {
    do append_value(variable.bytes_of_initialiser, in, variable.type);
    while (in.accept(","));
    in.expect("}");
  } else {
    append_value(variable.bytes_of_initialiser, in, variable.type);
  }
  if (int64_t(variable.bytes_of_initialiser.size()) > variable.bytes)
    in.fail("'" + variable.name + "' has more initial values than elements");
}

}  // namespace

Variable parse_variable(Cursor& in, Space space) {
  Variable v;
  v.space = space;
  v.line = in.line();
  bool typed = false;
  bool aligned = false;
  while (in.peek().text.starts_with(".")) {
    const std::string directive = in.word();
    if (directive == ".align") {
      const int64_t align = in.integer();
      if (align < 1 || align > 256 || (align & (align - 1)))
        in.fail("alignment is no power of two up to 256");
      if (!v.pointer || !typed) v.align = int(align), aligned = true;
      if (v.pointer) v.align = 1, aligned = false;  // of what it points to
    } else if (directive == ".ptr") {
      v.pointer = true;
    } else if (v.pointer && space_named(directive)) {
      // the space a pointer parameter points to: of no use here
    } else if (const auto type = type_named(std::string_view(directive).substr(1)); type && !typed) {
      v.type = *type;
      typed = true;
    } else {
      in.fail("unknown word '" + directive + "' in a declaration");
    }
  }
  if (!typed || v.type == Type::kPred) in.fail("a variable needs a type");
  v.name = in.word();
  int64_t count = 1;
  while (in.accept("[")) {
    if (in.accept("]")) {
      v.unsized = true;
      count = 0;
      break;
    }
    count *= in.integer();
    in.expect("]");
  }
  v.bytes = count * type_bytes(v.type);
  if (!aligned) v.align = type_bytes(v.type);
  if (v.align < type_bytes(v.type)) v.align = type_bytes(v.type);
  if (in.accept("=")) parse_initialiser(in, v);
  return v;
}

namespace {

std::vector<Variable> parse_params(Cursor& in) {
  std::vector<Variable> params;
  in.expect("(");
  if (in.accept(")")) return params;
  do {
    in.expect(".param");
    params.push_back(parse_variable(in, Space::kParam));
  } while (in.accept(","));
  in.expect(")");
  return params;
}

void parse_limits(Cursor& in, Function& f) {
  while (in.peek().text.starts_with(".")) {
    const std::string directive = in.word();
    if (directive == ".noreturn") continue;
    int64_t size[3] = {in.integer(), 1, 1};
    for (int i = 1; i < 3 && in.accept(","); ++i) size[i] = in.integer();
    if (directive == ".maxntid" || directive == ".reqntid") {
      f.max_threads = int(size[0] * size[1] * size[2]);
      f.exact_threads = directive == ".reqntid";
      if (f.exact_threads)
        for (int i = 0; i < 3; ++i) f.required[i] = int(size[i]);
    } else if (directive != ".minnctapersm" && directive != ".maxnreg") {
      in.fail("unknown directive '" + directive + "'");
    }
  }
}

void parse_function(Cursor& in, Module& module, bool entry) {
  Function f;
  f.entry = entry;
  f.line = in.line();
  if (!entry && in.at("(")) f.returns = parse_params(in);
  f.name = in.word();
  if (in.at("(")) f.params = parse_params(in);
  parse_limits(in, f);
  if (!in.accept(";")) {
    in.expect("{");
    f.defined = true;
    parse_body(in, f);
  }
  for (Function& known : module.functions) {
    if (known.name != f.name) continue;
    if (known.defined && f.defined) in.fail("'" + f.name + "' is defined twice");
    if (f.defined) known = std::move(f);
    return;
  }
  module.functions.push_back(std::move(f));
}

int parse_number_pair(Cursor& in) {  // "9.0" -> 90
  const std::string text = in.word();
  const size_t dot = text.find('.');
  if (dot == text.npos) in.fail("'" + text + "' is no version");
  return int(parse_integer(text.substr(0, dot), in.line()) * 10 +
             parse_integer(text.substr(dot + 1), in.line()));
}

// Debug sections hold nothing that is executed.
void skip_section(Cursor& in) {
  while (!in.at("{") && !in.at_end()) in.next();
  in.expect("{");
  while (!in.at("}") && !in.at_end()) in.next();
  in.expect("}");
}

}  // namespace

Module parse_ptx(std::string_view text) {
  Cursor in(tokenize(text));
  Module module;
  while (!in.at_end()) {
    const std::string word = in.word();
    if (word == ".version") {
      module.version = parse_number_pair(in);
    } else if (word == ".target") {
      const std::string name = in.word();
      if (!name.starts_with("sm_")) in.fail("unknown target '" + name + "'");
      std::string digits = name.substr(3);
      if (digits.ends_with('a') || digits.ends_with('f')) digits.pop_back();
      module.target = int(parse_integer(digits, in.line()));
      while (in.accept(",")) in.word();
    } else if (word == ".address_size") {
      if (in.integer() != 64) in.fail("only 64-bit addresses are known");
    } else if (word == ".visible" || word == ".extern" || word == ".weak" || word == ".common") {
      continue;
    } else if (word == ".entry" || word == ".func") {
      parse_function(in, module, word == ".entry");
    } else if (word == ".file") {
      in.integer();
      in.next();
      while (in.accept(",")) in.integer();
    } else if (word == ".section") {
      skip_section(in);
    } else if (word == ".pragma") {
      in.next();
      in.expect(";");
    } else if (const auto space = space_named(word); space && *space != Space::kParam) {
      module.variables.push_back(parse_variable(in, *space));
      in.expect(";");
    } else {
      in.fail("unknown directive '" + word + "'");
    }
  }
  if (module.version == 0 || module.target == 0) in.fail("no .version and .target");
  return module;
}

}  // namespace maestrale::ptxsim
