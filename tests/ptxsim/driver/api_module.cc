// SPDX-License-Identifier: Apache-2.0
// Modules (PTX text only: every binary is answered with "no binary for this GPU"), their functions and
// variables.
#include <cstring>

#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

Driver& driver() { return Driver::instance(); }

// The newest PTX version (major * 10 + minor) that a driver of `version` reads.
int newest_ptx(int version) {
  struct Known {
    int driver, ptx;
  };
  constexpr Known known[] = {{13000, 90}, {12090, 88}, {12080, 87}, {12060, 85}, {12040, 84},
                             {12030, 83}, {12020, 82}, {12010, 81}, {12000, 80}, {11080, 78},
                             {11070, 77}, {11060, 76}, {11050, 75}, {11040, 74}, {11030, 73},
                             {11020, 72}, {11010, 71}, {11000, 70}, {10020, 65}};
  for (const Known& k : known)
    if (version >= k.driver) return k.ptx;
  return 64;
}

struct Log {
  char* buffer = nullptr;
  size_t size = 0;
  void write(const std::string& text) const {
    if (!buffer || size == 0) return;
    const size_t n = std::min(size - 1, text.size());
    std::memcpy(buffer, text.data(), n);
    buffer[n] = 0;
  }
};

uint64_t place(const Variable& v) {
  DeviceMemory& memory = *driver().memory;
  const uint64_t at = memory.allocate(uint64_t(std::max<int64_t>(v.bytes, 1)), true);
  if (at == 0) throw std::bad_alloc();
  std::memset(memory.host(at), 0, size_t(v.bytes));
  std::memcpy(memory.host(at), v.bytes_of_initialiser.data(), v.bytes_of_initialiser.size());
  memory.mark_written(at, uint64_t(v.bytes));
  return at;
}

int load(void** module, const void* image, const Log& errors) {
  Driver& d = driver();
  if (!module || !image) return kInvalidValue;
  if (const int bad = d.refuse_in_capture()) return bad;
  if (d.settings.fail_module > 0 && --d.settings.fail_module == 0) {
    errors.write("ptxsim: injected failure");
    return d.settings.fail_module_with;
  }
  const unsigned char* bytes = static_cast<const unsigned char*>(image);
  if (std::memcmp(bytes,
                  "\x7f"
                  "ELF",
                  4) == 0 ||
      std::memcmp(bytes, "\x50\xed\x55\xba", 4) == 0)
    return kNoBinaryForGpu;
  auto m = std::make_unique<ModuleState>();
  try {
    m->source = parse_ptx(static_cast<const char*>(image));
    if (m->source.version > newest_ptx(d.settings.driver_version)) {
      errors.write("ptxsim: the driver is older than the module's .version");
      return kUnsupportedPtxVersion;
    }
    if (m->source.target > d.settings.cc) {
      errors.write("ptxsim: the device is older than the module's .target");
      return kInvalidPtx;
    }
    for (const Variable& v : m->source.variables) {
      if (v.space != Space::kGlobal && v.space != Space::kConst) continue;
      m->variables[v.name] = place(v);
      m->variable_bytes[v.name] = uint64_t(v.bytes);
    }
    Decoder decoder(m->source, [&m](const std::string& name) { return m->variables.at(name); });
    for (const Function& f : m->source.functions) {
      if (!f.entry || !f.defined) continue;
      m->functions[f.name] = std::make_unique<FunctionState>(FunctionState{m.get(), decoder.decode(f), 0});
      FunctionState& state = *m->functions[f.name];
      state.max_dynamic_shared = (48 << 10) - int(state.program.shared_bytes);
    }
  } catch (const PtxError& error) {
    errors.write(error.what());
    if (!d.settings.quiet) std::fprintf(stderr, "ptxsim: %s\n", error.what());
    for (const auto& [name, at] : m->variables) d.memory->release(at);
    return kInvalidPtx;
  }
  for (const auto& [name, f] : m->functions) d.functions.insert(f.get());
  d.modules.insert(m.get());
  *module = m.release();
  return kSuccess;
}

ModuleState* module_of(void* handle) {
  ModuleState* m = static_cast<ModuleState*>(handle);
  return driver().modules.count(m) ? m : nullptr;
}

}  // namespace

PTXSIM_API cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
  return enter("cuModuleLoadDataEx", kContext, [&]() -> int {
    Log errors, info;
    if (count && (!options || !values)) return kInvalidValue;
    for (unsigned i = 0; i < count; ++i) {
      if (options[i] < 0 || options[i] > 40) return kInvalidValue;
      if (options[i] == 3) info.buffer = static_cast<char*>(values[i]);
      if (options[i] == 4) info.size = reinterpret_cast<size_t>(values[i]);
      if (options[i] == 5) errors.buffer = static_cast<char*>(values[i]);
      if (options[i] == 6) errors.size = reinterpret_cast<size_t>(values[i]);
    }
    info.write("");
    errors.write("");
    return load(module, image, errors);
  });
}

PTXSIM_API cuModuleLoadData(void** module, const void* image) {
  return enter("cuModuleLoadData", kContext, [&] { return load(module, image, {}); });
}

PTXSIM_API cuModuleUnload(void* module) {
  return enter("cuModuleUnload", kContext, [&]() -> int {
    ModuleState* m = module_of(module);
    if (!m) return kInvalidHandle;
    driver().run_until([] { return driver().idle(); });
    driver().unload(m);
    return kSuccess;
  });
}

PTXSIM_API cuModuleGetFunction(void** function, void* module, const char* name) {
  return enter("cuModuleGetFunction", kContext, [&]() -> int {
    ModuleState* m = module_of(module);
    if (!m) return kInvalidHandle;
    if (!function || !name) return kInvalidValue;
    const auto found = m->functions.find(name);
    if (found == m->functions.end()) return kNotFound;
    *function = found->second.get();
    return kSuccess;
  });
}

PTXSIM_API cuModuleGetGlobal_v2(uint64_t* address, size_t* bytes, void* module, const char* name) {
  return enter("cuModuleGetGlobal_v2", kContext, [&]() -> int {
    ModuleState* m = module_of(module);
    if (!m) return kInvalidHandle;
    if (!name) return kInvalidValue;
    const auto found = m->variables.find(name);
    if (found == m->variables.end()) return kNotFound;
    if (address) *address = found->second;
    if (bytes) *bytes = m->variable_bytes[name];
    return kSuccess;
  });
}
