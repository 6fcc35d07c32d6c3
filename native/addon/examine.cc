// SPDX-License-Identifier: Apache-2.0
#include "addon/examine.h"

#include <memory>

#include "addon/background.h"
#include "addon/convert.h"
#include "engine/machine.h"

namespace maestrale {
namespace {

class ExamineJob final : public Job {
 public:
  void work() override { machine_ = examine_machine(); }
  Napi::Value result(Napi::Env env) override {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("threads", machine_.threads);
    object.Set("availableMemory", double(machine_.available_memory));
    object.Set("readBandwidth", machine_.read_bandwidth);
    const Napi::Array isas = Napi::Array::New(env);
    for (const std::string& name : machine_.isas) isas.Set(isas.Length(), name);
    object.Set("isas", isas);
    object.Set("cudaDevices", machine_.cuda_devices);
    if (!machine_.cuda_problem.empty()) object.Set("cudaProblem", machine_.cuda_problem);
    return object;
  }

 private:
  Machine machine_;
};

}  // namespace

Napi::Value examine_machine(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return info.Env().GetInstanceData<Background>()->start(info.Env(), std::make_shared<ExamineJob>());
  });
}

}  // namespace maestrale
