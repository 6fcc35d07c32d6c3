// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernel_module.h"

#include "base/error.h"

namespace maestrale::cuda {

// Written by the build, see cmake/embed_ptx.cmake.
extern const char kPtx75[];
extern const char kPtx80[];

namespace {

constexpr int kErrorLog = 5, kErrorLogBytes = 6;  // CUjit_option
constexpr std::string_view kEntry = ".visible .entry ";

// The sizes of the parameters between the brackets behind a name, in order: `.param .u64 name` or
// `.param .align 8 .b8 name[96]`.
std::vector<size_t> parameter_bytes(std::string_view text) {
  constexpr std::string_view kParam = ".param .";
  std::vector<size_t> sizes;
  for (size_t p = text.find(kParam); p != text.npos; p = text.find(kParam, p)) {
    p += kParam.size();
    const std::string_view param = text.substr(p, text.find(',', p) - p);
    if (param.starts_with("align"))
      sizes.push_back(size_t(std::stoul(std::string(param.substr(param.find('[') + 1)))));
    else
      sizes.push_back(param.substr(1, 2) == "64" ? 8 : 4);
  }
  return sizes;
}

// Which part a kernel belongs to: those of a storage type, those of attention over a kind of cache, the rest.
std::string part_of(std::string_view name) {
  if (const size_t at = name.find("attention_"); at != name.npos)
    return std::string(name.substr(at, name.rfind('_') - at));
  if (name.starts_with("repack_")) return std::string(name.substr(name.find('_') + 1));
  if (name.starts_with("matmul_") && name != "matmul_f32")
    return std::string(name.substr(name.find('_', name.find('_') + 1) + 1));
  return "";
}

}  // namespace

KernelModule::KernelModule(const Device& device) : device_(device) {
  const std::string_view ptx = device.capability() >= 80 ? kPtx80 : kPtx75;
  size_t at = ptx.find(kEntry);
  declarations_ = ptx.substr(0, at);
  while (at != ptx.npos) {
    const size_t next = ptx.find(kEntry, at + kEntry.size());
    const std::string_view text = ptx.substr(at, next - at);
    const size_t open = text.find('(');
    const std::string name(text.substr(kEntry.size(), open - kEntry.size()));
    Entry& entry = entries_[name];
    entry.name = name;
    entry.part = part_of(name);
    entry.text = text;
    entry.argument_bytes = parameter_bytes(text.substr(open, text.find(')') - open));
    at = next;
  }
  load("");
}

KernelModule::~KernelModule() {
  for (const auto& [part, module] : modules_) device_.driver().cuModuleUnload(module);
}

const KernelModule::Entry& KernelModule::entry(const std::string& name,
                                               const std::vector<size_t>& argument_bytes) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw Error(ErrorCode::kInternal, "there is no kernel " + name);
  if (found->second.argument_bytes != argument_bytes)
    throw Error(ErrorCode::kInternal, "the kernel " + name + " takes other arguments than it is given");
  return found->second;
}

Handle KernelModule::function(const Entry& entry) const {
  if (const Handle known = entry.function.load(std::memory_order_acquire)) return known;
  const std::lock_guard lock(mutex_);
  const auto module = modules_.find(entry.part);
  Handle found = nullptr;
  device_.make_current();
  MAESTRALE_CU(device_, cuModuleGetFunction, &found,
               module != modules_.end() ? module->second : load(entry.part), entry.name.c_str());
  entry.function.store(found, std::memory_order_release);
  return found;
}

Handle KernelModule::load(const std::string& part) const {
  std::string ptx(declarations_);
  for (const auto& [name, entry] : entries_)
    if (entry.part == part) ptx += entry.text;
  char log[1024] = "";
  int options[] = {kErrorLog, kErrorLogBytes};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  Handle module = nullptr;
  device_.make_current();
  try {
    MAESTRALE_CU(device_, cuModuleLoadDataEx, &module, ptx.c_str(), 2, options, values);
  } catch (const Error& error) {
    if (log[0] == 0) throw;
    throw Error(error.code(), error.message() + ": " + log);
  }
  return modules_[part] = module;
}

}  // namespace maestrale::cuda
