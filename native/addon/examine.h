// SPDX-License-Identifier: Apache-2.0
// examineMachine() and measureGpu() of the addon.
#pragma once

#include <napi.h>

namespace maestrale {

Napi::Value examine_machine(const Napi::CallbackInfo& info);
Napi::Value measure_gpu(const Napi::CallbackInfo& info);

}  // namespace maestrale
