// SPDX-License-Identifier: Apache-2.0
#include "addon/inspect_file.h"

#include <type_traits>
#include <variant>
#include <vector>

#include "addon/convert.h"

namespace maestrale {
namespace {

constexpr size_t kShownElements = 8;

Napi::Value scalar(Napi::Env env, std::string_view value) {
  return Napi::String::New(env, value.data(), value.size());
}
Napi::Value scalar(Napi::Env env, bool value) { return Napi::Boolean::New(env, value); }
template <class T>
Napi::Value scalar(Napi::Env env, T value) {
  return Napi::Number::New(env, double(value));
}

const char* type_name(std::string_view) { return "string"; }
const char* type_name(bool) { return "bool"; }
const char* type_name(double) { return "float"; }
const char* type_name(uint64_t) { return "uint"; }
const char* type_name(int64_t) { return "int"; }

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

Napi::Object entry(Napi::Env env, std::string_view key, const GgufValue& value) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("key", scalar(env, key));
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (IsVector<T>::value) {
          using Element = typename T::value_type;
          const Napi::Object array = Napi::Object::New(env);
          const Napi::Array first = Napi::Array::New(env);
          for (size_t i = 0; i < held.size() && i < kShownElements; ++i)
            first.Set(uint32_t(i), scalar(env, Element(held[i])));
          array.Set("length", double(held.size()));
          array.Set("first", first);
          object.Set("type", std::string(type_name(Element())) + "[]");
          object.Set("value", array);
        } else {
          object.Set("type", type_name(held));
          object.Set("value", scalar(env, held));
        }
      },
      value);
  return object;
}

}  // namespace

FileInspection::FileInspection(const std::string& path)
    : file_(path), header_(GgufFile::parse(file_.bytes(), file_.size())) {
  try {
    config_ = config_from_gguf(header_);
  } catch (const Error& error) {
    config_error_ = error;  // a vocabulary alone, or another architecture: still worth a look
  }
}

Napi::Object FileInspection::to_js(Napi::Env env) const {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("version", header_.version());
  object.Set("fileSize", double(file_.size()));
  const Napi::Array metadata = Napi::Array::New(env);
  for (const auto& [key, value] : header_.metadata()) metadata.Set(metadata.Length(), entry(env, key, value));
  object.Set("metadata", metadata);
  const Napi::Array tensors = Napi::Array::New(env);
  for (const GgufTensor& tensor : header_.tensors()) {
    const Napi::Object item = Napi::Object::New(env);
    item.Set("name", scalar(env, tensor.name));
    item.Set("type", scalar(env, quant_traits(tensor.type).name));
    const Napi::Array shape = Napi::Array::New(env);
    for (const uint64_t dim : tensor.shape) shape.Set(shape.Length(), double(dim));
    item.Set("shape", shape);
    item.Set("offset", double(tensor.offset));
    item.Set("bytes", double(tensor.bytes));
    tensors.Set(tensors.Length(), item);
  }
  object.Set("tensors", tensors);
  if (config_) object.Set("config", maestrale::to_js(env, *config_));
  if (config_error_) object.Set("configError", config_error_->message());
  return object;
}

}  // namespace maestrale
