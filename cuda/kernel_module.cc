// SPDX-License-Identifier: Apache-2.0
#include "cuda/kernel_module.h"

#include "base/error.h"

namespace maestrale::cuda {

// Written by the build, see cmake/embed_ptx.cmake.
extern const char kPtx75[];
extern const char kPtx80[];

namespace {

constexpr int kErrorLog = 5, kErrorLogBytes = 6;  // CUjit_option

// The sizes of the parameters of `.visible .entry name(...)`, in order; only scalars occur.
std::vector<size_t> signature(std::string_view ptx, const std::string& name) {
  std::vector<size_t> sizes;
  const size_t begin = ptx.find(".entry " + name + "(");
  if (begin == ptx.npos) throw Error(ErrorCode::kInternal, "there is no kernel " + name);
  const std::string_view text = ptx.substr(begin, ptx.find(')', begin) - begin);
  for (size_t at = text.find(".param ."); at != text.npos; at = text.find(".param .", at + 1))
    sizes.push_back(text.substr(at + 9, 2) == "64" ? 8 : 4);
  return sizes;
}

}  // namespace

KernelModule::KernelModule(const Device& device)
    : device_(device), ptx_(device.capability() >= 80 ? kPtx80 : kPtx75) {
  char log[1024] = "";
  int options[] = {kErrorLog, kErrorLogBytes};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  device.make_current();
  try {
    MAESTRALE_CU(device, cuModuleLoadDataEx, &module_, ptx_.data(), 2, options, values);
  } catch (const Error& error) {
    if (log[0] == 0) throw;
    throw Error(error.code(), error.message() + ": " + log);
  }
}

KernelModule::~KernelModule() { device_.driver().cuModuleUnload(module_); }

Handle KernelModule::function(const std::string& name, const std::vector<size_t>& argument_bytes) const {
  if (signature(ptx_, name) != argument_bytes)
    throw Error(ErrorCode::kInternal, "the kernel " + name + " takes other arguments than it is given");
  Handle found = nullptr;
  MAESTRALE_CU(device_, cuModuleGetFunction, &found, module_, name.c_str());
  return found;
}

}  // namespace maestrale::cuda
