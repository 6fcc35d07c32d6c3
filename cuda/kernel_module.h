// SPDX-License-Identifier: Apache-2.0
// The kernels on a device, and typed launches. The driver translates PTX when it is loaded, which takes it
// seconds for all of it, so the text is given to it in parts: at once what every model needs, then the
// kernels of a storage type or of attention over a kind of cache when the first of them is wanted.
//
// The size of every argument is compared with the signature in the PTX when a kernel is looked up, so a
// wrapper and its kernel cannot drift apart.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/device.h"

namespace maestrale::cuda {

class KernelModule {
 public:
  struct Entry {
    std::string name, part;
    std::string_view text;  // in PTX
    std::vector<size_t> argument_bytes;
    mutable std::atomic<Handle> function{nullptr};  // once its part has been loaded
  };

  // Takes the PTX that suits the device and loads what every model needs. Throws Error{kDevice} with the
  // driver's log.
  explicit KernelModule(const Device& device);
  ~KernelModule();
  KernelModule(const KernelModule&) = delete;
  KernelModule& operator=(const KernelModule&) = delete;

  // The kernel `name`, whose parameters must have these sizes. Throws Error{kInternal}.
  const Entry& entry(const std::string& name, const std::vector<size_t>& argument_bytes) const;
  // Loads its part before. On any thread. Throws Error{kDevice}.
  Handle function(const Entry& entry) const;

  const Device& device() const { return device_; }

 private:
  Handle load(const std::string& part) const;

  const Device& device_;
  std::string_view declarations_;         // what comes before the kernels
  std::map<std::string, Entry> entries_;  // by name
  mutable std::mutex mutex_;
  mutable std::map<std::string, Handle> modules_;  // by part
};

template <class... Args>
class Kernel {
 public:
  Kernel() = default;
  Kernel(const KernelModule& module, const std::string& name)
      : module_(&module), entry_(&module.entry(name, {sizeof(Args)...})) {}

  // Does what the first launch would have to do before.
  void load() const { module_->function(*entry_); }

  // Among the launches of the model's steps, or others.
  void operator()(Grid grid, Args... args) const { in(module_->device().launches(), grid, args...); }
  void in(Launches& launches, Grid grid, Args... args) const {
    static_assert(sizeof...(Args) <= kMostArguments);
    const Argument arguments[] = {{&args, sizeof args}...};
    launches.launch(module_->function(*entry_), grid, arguments);
  }

 private:
  const KernelModule* module_ = nullptr;
  const KernelModule::Entry* entry_ = nullptr;
};

}  // namespace maestrale::cuda
