// SPDX-License-Identifier: Apache-2.0
// The module of kernels on a device, and typed launches. The size of every argument is compared with the
// signature in the PTX when a kernel is looked up, so a wrapper and its kernel cannot drift apart.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "cuda/device.h"

namespace maestrale::cuda {

class KernelModule {
 public:
  // Loads the PTX that suits the device. Throws Error{kDevice} with the driver's log.
  explicit KernelModule(const Device& device);
  ~KernelModule();
  KernelModule(const KernelModule&) = delete;
  KernelModule& operator=(const KernelModule&) = delete;

  // The function `name`, whose parameters must have these sizes. Throws Error{kDevice}, Error{kInternal}.
  Handle function(const std::string& name, const std::vector<size_t>& argument_bytes) const;

  const Device& device() const { return device_; }

 private:
  const Device& device_;
  std::map<std::string, std::vector<size_t>, std::less<>> signatures_;  // sizes of the parameters, by kernel
  Handle module_ = nullptr;
};

template <class... Args>
class Kernel {
 public:
  Kernel() = default;
  Kernel(const KernelModule& module, const std::string& name)
      : function_(module.function(name, {sizeof(Args)...})), device_(&module.device()) {}

  void operator()(Grid grid, Args... args) const {
    static_assert(sizeof...(Args) <= kMostArguments);
    const Argument arguments[] = {{&args, sizeof args}...};
    device_->launches().launch(function_, grid, arguments);
  }

 private:
  Handle function_ = nullptr;
  const Device* device_ = nullptr;
};

}  // namespace maestrale::cuda
