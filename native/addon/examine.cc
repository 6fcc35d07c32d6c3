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
    object.Set("isas", to_js(env, machine_.isas));
    object.Set("namedIsas", to_js(env, machine_.named_isas));
    const Napi::Array gpus = Napi::Array::New(env);
    for (const GpuFacts& gpu : machine_.gpus) {
      const Napi::Object facts = Napi::Object::New(env);
      facts.Set("name", gpu.name);
      facts.Set("capability", gpu.capability);
      facts.Set("memory", double(gpu.memory));
      facts.Set("usable", gpu.usable);
      facts.Set("memoryBandwidth", double(gpu.memory_bandwidth));
      gpus.Set(gpus.Length(), facts);
    }
    object.Set("gpus", gpus);
    object.Set("cudaVersion", machine_.cuda_version);
    if (!machine_.cuda_problem.empty()) object.Set("cudaProblem", machine_.cuda_problem);
    return object;
  }

 private:
  Machine machine_;
};

class MeasureGpuJob final : public Job {
 public:
  explicit MeasureGpuJob(int ordinal) : ordinal_(ordinal) {}
  void work() override { speed_ = measure_gpu(ordinal_); }
  Napi::Value result(Napi::Env env) override {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("bytes", double(speed_.bytes));
    object.Set("seconds", speed_.seconds);
    return object;
  }

 private:
  const int ordinal_;
  GpuReadSpeed speed_;
};

}  // namespace

Napi::Value examine_machine(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return info.Env().GetInstanceData<Background>()->start(info.Env(), std::make_shared<ExamineJob>());
  });
}

Napi::Value measure_gpu(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const int ordinal = info[0].ToNumber().Int32Value();
    return info.Env().GetInstanceData<Background>()->start(info.Env(),
                                                           std::make_shared<MeasureGpuJob>(ordinal));
  });
}

}  // namespace maestrale
