// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernel_module.h"

#include "base/error.h"

namespace maestrale::cuda {

// Written by the build, see cmake/embed_ptx.cmake.
extern const char kPtx75[];
extern const char kPtx80[];

namespace {

constexpr int kErrorLog = 5, kErrorLogBytes = 6;  // CUjit_option

// The sizes of the parameters of every `.visible .entry name(...)`, in order: `.param .u64 name` or
// `.param .align 8 .b8 name[96]`.
std::map<std::string, std::vector<size_t>, std::less<>> signatures(std::string_view ptx) {
  std::map<std::string, std::vector<size_t>, std::less<>> all;
  constexpr std::string_view kEntry = ".entry ", kParam = ".param .";
  for (size_t at = ptx.find(kEntry); at != ptx.npos; at = ptx.find(kEntry, at)) {
    at += kEntry.size();
    const size_t open = ptx.find('(', at), close = ptx.find(')', open);
    std::vector<size_t>& sizes = all[std::string(ptx.substr(at, open - at))];
    const std::string_view text = ptx.substr(open, close - open);
    for (size_t p = text.find(kParam); p != text.npos; p = text.find(kParam, p)) {
      p += kParam.size();
      const std::string_view param = text.substr(p, text.find(',', p) - p);
      if (param.starts_with("align"))
        sizes.push_back(size_t(std::stoul(std::string(param.substr(param.find('[') + 1)))));
      else
        sizes.push_back(param.substr(1, 2) == "64" ? 8 : 4);
    }
    at = close;
  }
  return all;
}

}  // namespace

KernelModule::KernelModule(const Device& device) : device_(device) {
  const char* ptx = device.capability() >= 80 ? kPtx80 : kPtx75;
  signatures_ = signatures(ptx);
  char log[1024] = "";
  int options[] = {kErrorLog, kErrorLogBytes};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  device.make_current();
  try {
    MAESTRALE_CU(device, cuModuleLoadDataEx, &module_, ptx, 2, options, values);
  } catch (const Error& error) {
    if (log[0] == 0) throw;
    throw Error(error.code(), error.message() + ": " + log);
  }
}

KernelModule::~KernelModule() { device_.driver().cuModuleUnload(module_); }

Handle KernelModule::function(const std::string& name, const std::vector<size_t>& argument_bytes) const {
  const auto found_signature = signatures_.find(name);
  if (found_signature == signatures_.end()) throw Error(ErrorCode::kInternal, "there is no kernel " + name);
  if (found_signature->second != argument_bytes)
    throw Error(ErrorCode::kInternal, "the kernel " + name + " takes other arguments than it is given");
  Handle found = nullptr;
  MAESTRALE_CU(device_, cuModuleGetFunction, &found, module_, name.c_str());
  return found;
}

}  // namespace maestrale::cuda
