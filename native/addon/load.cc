// SPDX-License-Identifier: Apache-2.0
#include "addon/load.h"

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/inspect_file.h"
#include "addon/model_wrap.h"
#include "addon/tokenizer_wrap.h"
#include "engine/merge_adapter.h"
#include "engine/open.h"
#include "engine/packed_file.h"
#include "engine/quantize_model.h"

namespace maestrale {
namespace {

// Work over a file that reports how many bytes of it are done.
class ProgressJob : public Job {
 public:
  explicit ProgressJob(const Napi::Value& on_progress) {
    if (on_progress.IsFunction()) on_progress_ = Napi::Persistent(on_progress.As<Napi::Function>());
  }

  void progress(Napi::Env env) override {
    if (!on_progress_.IsEmpty())
      on_progress_.Call({Napi::Number::New(env, double(done_)), Napi::Number::New(env, double(total_))});
  }

 protected:
  LoadCallbacks callbacks() {
    LoadCallbacks callbacks;
    callbacks.cancelled = &cancelled;
    callbacks.on_progress = [this](uint64_t done, uint64_t total) {
      done_ = done;
      total_ = total;
      report();
    };
    return callbacks;
  }

 private:
  Napi::FunctionReference on_progress_;
  std::atomic<uint64_t> done_{0}, total_{0};
};

class LoadModelJob final : public ProgressJob {
 public:
  LoadModelJob(Napi::Env env, OpenOptions options, const Napi::Value& on_progress,
               const Napi::Function& on_events)
      : ProgressJob(on_progress), options_(std::move(options)) {
    loaded_.channel = std::make_shared<EventChannel>(env);
    loaded_.on_events = Napi::Persistent(on_events);
  }

  void work() override {
    const std::shared_ptr<EventChannel> channel = loaded_.channel;
    loaded_.opened = open_model(options_, callbacks(),
                                [channel](std::vector<Event>&& events) { channel->post(std::move(events)); });
    if (cancelled) throw Error(ErrorCode::kAborted, "loading the model was aborted");
  }

  Napi::Value result(Napi::Env env) override { return ModelWrap::create(env, std::move(loaded_)); }

 private:
  const OpenOptions options_;
  LoadedModel loaded_;
};

class LoadTokenizerJob final : public Job {
 public:
  explicit LoadTokenizerJob(std::string path) : path_(std::move(path)) {}
  void work() override { tokenizer_ = open_tokenizer(path_); }
  Napi::Value result(Napi::Env env) override { return new_tokenizer(env, tokenizer_); }

 private:
  const std::string path_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

class InspectJob final : public Job {
 public:
  explicit InspectJob(std::string path) : path_(std::move(path)) {}
  void work() override { inspection_ = inspect_path(path_); }
  Napi::Value result(Napi::Env env) override { return inspection_->to_js(env); }

 private:
  const std::string path_;
  std::unique_ptr<const Inspection> inspection_;
};

class PackJob final : public ProgressJob {
 public:
  PackJob(std::string in, std::string out, const Napi::Value& on_progress)
      : ProgressJob(on_progress), in_(std::move(in)), out_(std::move(out)) {}
  void work() override { pack_model(in_, out_, callbacks()); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  const std::string in_, out_;
};

// Writes a model: `write` is quantize_model or merge_adapter.
template <class Options, auto write>
class WriteJob final : public ProgressJob {
 public:
  WriteJob(std::string in, std::string out, Options options, const Napi::Value& on_progress)
      : ProgressJob(on_progress), in_(std::move(in)), out_(std::move(out)), options_(std::move(options)) {}
  void work() override { written_ = write(in_, out_, options_, callbacks()); }
  Napi::Value result(Napi::Env env) override { return to_js(env, written_); }

 private:
  const std::string in_, out_;
  const Options options_;
  WrittenModel written_;
};
using MergeJob = WriteJob<MergeOptions, merge_adapter>;
using QuantizeJob = WriteJob<QuantizeOptions, quantize_model>;

Napi::Promise start(Napi::Env env, std::shared_ptr<Job> job) {
  return env.GetInstanceData<Background>()->start(env, std::move(job));
}

// { promise, cancel() }: NativeJob of lib/native/binding.ts.
Napi::Object start_cancellable(Napi::Env env, const std::shared_ptr<Job>& job) {
  const Napi::Object started = Napi::Object::New(env);
  started.Set("promise", start(env, job));
  const std::weak_ptr<Job> weak = job;
  started.Set("cancel", Napi::Function::New(env, [weak](const Napi::CallbackInfo&) {
                if (const auto running = weak.lock()) running->cancelled = true;
              }));
  return started;
}

}  // namespace

Napi::Value load_model(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    return start_cancellable(
        env, std::make_shared<LoadModelJob>(env, to_open_options(info[0].As<Napi::Object>()), info[1],
                                            info[2].As<Napi::Function>()));
  });
}

Napi::Value load_tokenizer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return start(info.Env(), std::make_shared<LoadTokenizerJob>(info[0].ToString().Utf8Value()));
  });
}

Napi::Value inspect(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return start(info.Env(), std::make_shared<InspectJob>(info[0].ToString().Utf8Value()));
  });
}

Napi::Value pack(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return start_cancellable(info.Env(), std::make_shared<PackJob>(info[0].ToString().Utf8Value(),
                                                                   info[1].ToString().Utf8Value(), info[2]));
  });
}

Napi::Value merge(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return start_cancellable(
        info.Env(), std::make_shared<MergeJob>(info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value(),
                                               to_merge_options(info[2].As<Napi::Object>()), info[3]));
  });
}

Napi::Value quantize(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return start_cancellable(info.Env(), std::make_shared<QuantizeJob>(
                                             info[0].ToString().Utf8Value(), info[1].ToString().Utf8Value(),
                                             to_quantize_options(info[2].As<Napi::Object>()), info[3]));
  });
}

}  // namespace maestrale
