// SPDX-License-Identifier: Apache-2.0
// Runs PTX in tests without the driver: a module, its device memory, launches with typed arguments.
#pragma once

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "check.h"
#include "exec/cta.h"
#include "exec/decoder.h"
#include "ptx/ir.h"

namespace maestrale::ptxsim::test {

// The header every hand-written module needs.
inline std::string module_text(const std::string& body) {
  return ".version 8.0\n.target sm_90\n.address_size 64\n" + body;
}

// "fma.rn.f32": what an instruction is, without its operands.
inline std::string form_of(const Instruction& instruction) {
  std::string form = instruction.opcode;
  for (const std::string& modifier : instruction.modifiers) form += "." + modifier;
  return form;
}
// Of the modules that this process has simulated.
inline std::set<std::string>& simulated_forms() {
  static std::set<std::string> all;
  return all;
}

class Simulation {
 public:
  explicit Simulation(const std::string& ptx, uint64_t memory_bytes = uint64_t{1} << 26)
      : module_(parse_ptx(ptx)), memory_(memory_bytes) {
    for (const Function& function : module_.functions)
      for (const Instruction& instruction : function.body) simulated_forms().insert(form_of(instruction));
    for (const Variable& v : module_.variables) {
      if (v.space != Space::kGlobal && v.space != Space::kConst) continue;
      const uint64_t at = memory_.allocate(std::max<uint64_t>(1, uint64_t(v.bytes)), true);
      std::memcpy(memory_.host(at), v.bytes_of_initialiser.data(), v.bytes_of_initialiser.size());
      memory_.mark_written(at, uint64_t(v.bytes));
      addresses_[v.name] = at;
    }
  }

  template <class T>
  uint64_t upload(const std::vector<T>& values) {
    const uint64_t at = memory_.allocate(values.size() * sizeof(T));
    std::memcpy(memory_.host(at), values.data(), values.size() * sizeof(T));
    memory_.mark_written(at, values.size() * sizeof(T));
    return at;
  }
  template <class T>
  uint64_t reserve(size_t count) {
    return memory_.allocate(count * sizeof(T));
  }
  template <class T>
  std::vector<T> download(uint64_t at, size_t count) const {
    std::vector<T> values(count);
    std::memcpy(values.data(), memory_.host(at), count * sizeof(T));
    return values;
  }

  template <class... Args>
  Counters launch(const std::string& kernel, Dim3 grid, Dim3 block, uint64_t dynamic_shared, Args... args) {
    const Program& program = this->program(kernel);
    Launch l{&program, &memory_, {grid, block, dynamic_shared, {}, false}, options, {}, {}, {}, {}, {}, {}};
    l.config.params.resize(size_t(program.param_bytes));
    CHECK_EQ(program.params.size(), sizeof...(args));
    size_t k = 0;
    const auto put = [&](const auto& value) {
      CHECK_EQ(size_t(program.params[k].bytes), sizeof value);
      std::memcpy(l.config.params.data() + program.params[k++].offset, &value, sizeof value);
    };
    (put(args), ...);
    try {
      run(l);
    } catch (const Fault&) {
      memory_.forget_sectors();
      throw;
    }
    output = l.output;
    return l.counters;
  }

  const Program& program(const std::string& kernel) {
    auto& known = programs_[kernel];
    if (!known) {
      const Function* f = module_.function(kernel);
      CHECK(f != nullptr);
      Decoder decoder(module_, [this](const std::string& name) { return addresses_.at(name); });
      known = std::make_unique<Program>(decoder.decode(*f));
    }
    return *known;
  }

  DeviceMemory& memory() { return memory_; }
  Options options;
  std::string output;

 private:
  Module module_;
  DeviceMemory memory_;
  std::map<std::string, uint64_t> addresses_;
  std::map<std::string, std::unique_ptr<Program>> programs_;
};

// The statement must throw a Fault of this kind.
#define CHECK_FAULT(statement, expected)                                                         \
  do {                                                                                           \
    bool thrown = false;                                                                         \
    try {                                                                                        \
      statement;                                                                                 \
    } catch (const ::maestrale::ptxsim::Fault& fault) {                                          \
      thrown = true;                                                                             \
      if (fault.kind() != (expected))                                                            \
        ::maestrale::test::fail(__FILE__, __LINE__, std::string("wrong kind: ") + fault.what()); \
    }                                                                                            \
    if (!thrown) ::maestrale::test::fail(__FILE__, __LINE__, "no fault: " #statement);           \
  } while (0)

}  // namespace maestrale::ptxsim::test
