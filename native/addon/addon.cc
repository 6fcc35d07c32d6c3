// SPDX-License-Identifier: Apache-2.0
// The entry of maestrale.node. Every environment (main thread, worker) gets its own classes and jobs;
// nothing here is shared between environments.
#include <napi.h>

#include "addon/background.h"
#include "addon/convert.h"
#include "addon/examine.h"
#include "addon/load.h"
#include "addon/model_wrap.h"
#include "addon/tokenizer_wrap.h"
#include "cpu/cpu_backend.h"

namespace maestrale {
namespace {

Napi::Value isa_tables(const Napi::CallbackInfo& info) { return to_js(info.Env(), available_isas()); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Background(env));
  define_tokenizer_classes(env);
  ModelWrap::define(env);
  exports.Set("loadModel", Napi::Function::New<load_model>(env, "loadModel"));
  exports.Set("loadTokenizer", Napi::Function::New<load_tokenizer>(env, "loadTokenizer"));
  exports.Set("inspect", Napi::Function::New<inspect>(env, "inspect"));
  exports.Set("pack", Napi::Function::New<pack>(env, "pack"));
  exports.Set("merge", Napi::Function::New<merge>(env, "merge"));
  exports.Set("quantize", Napi::Function::New<quantize>(env, "quantize"));
  exports.Set("examineMachine", Napi::Function::New<examine_machine>(env, "examineMachine"));
  exports.Set("measureGpu", Napi::Function::New<measure_gpu>(env, "measureGpu"));
  exports.Set("isaTables", Napi::Function::New<isa_tables>(env, "isaTables"));
  return exports;
}

}  // namespace
}  // namespace maestrale

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return maestrale::init(env, exports); }
NODE_API_MODULE(maestrale, init_addon)
