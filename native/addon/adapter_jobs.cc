// SPDX-License-Identifier: Apache-2.0
#include "addon/adapter_jobs.h"

#include <memory>
#include <utility>

#include "addon/background.h"
#include "engine/open.h"

namespace maestrale {
namespace {

// Work on an engine, which the engine's destruction waits for.
class EngineJob : public Job {
 public:
  explicit EngineJob(Engine& engine) : visit_(std::make_unique<Engine::Visit>(engine)) {}

  void work() final {
    const std::unique_ptr<Engine::Visit> visit = std::move(visit_);
    work(visit->engine());
  }

 protected:
  virtual void work(Engine& engine) = 0;

 private:
  std::unique_ptr<Engine::Visit> visit_;
};

class LoadAdapterJob final : public EngineJob {
 public:
  LoadAdapterJob(Engine& engine, LoadAdapterOptions options)
      : EngineJob(engine), options_(std::move(options)) {}
  Napi::Value result(Napi::Env env) override { return to_js(env, facts_); }

 protected:
  void work(Engine& engine) override {
    facts_ = engine.load_adapter(options_.path, options_.name, options_.scale, [&] {
      return open_base_weights(options_.base_path, options_.base_quantization, options_.base_double_quant);
    });
  }

 private:
  const LoadAdapterOptions options_;
  AdapterFacts facts_;
};

class UnloadAdapterJob final : public EngineJob {
 public:
  UnloadAdapterJob(Engine& engine, std::string name) : EngineJob(engine), name_(std::move(name)) {}
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 protected:
  void work(Engine& engine) override { engine.unload_adapter(name_); }

 private:
  const std::string name_;
};

Napi::Promise start(Napi::Env env, std::shared_ptr<Job> job) {
  return env.GetInstanceData<Background>()->start(env, std::move(job));
}

}  // namespace

Napi::Promise load_adapter(Napi::Env env, Engine& engine, LoadAdapterOptions options) {
  return start(env, std::make_shared<LoadAdapterJob>(engine, std::move(options)));
}

Napi::Promise unload_adapter(Napi::Env env, Engine& engine, std::string name) {
  return start(env, std::make_shared<UnloadAdapterJob>(engine, std::move(name)));
}

Napi::Object to_js(Napi::Env env, const AdapterFacts& facts) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("name", facts.name);
  object.Set("path", facts.path);
  object.Set("scale", double(facts.scale));
  object.Set("rank", double(facts.rank));
  object.Set("parameters", double(facts.parameters));
  object.Set("bytes", double(facts.bytes));
  object.Set("requests", double(facts.requests));
  return object;
}

}  // namespace maestrale
