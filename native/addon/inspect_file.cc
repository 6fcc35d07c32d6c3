// SPDX-License-Identifier: Apache-2.0
#include "addon/inspect_file.h"

#include <memory>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

#include "addon/convert.h"
#include "base/error.h"
#include "engine/model_path.h"
#include "engine/packed_file.h"
#include "io/gguf.h"
#include "io/text_file.h"
#include "model/hf_config.h"
#include "model/hf_files.h"
#include "model/hf_weights.h"

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

Napi::Object tensor_object(Napi::Env env, std::string_view name, std::string_view type,
                           const std::vector<uint64_t>& dims, uint64_t offset, uint64_t bytes) {
  const Napi::Object item = Napi::Object::New(env);
  item.Set("name", scalar(env, name));
  item.Set("type", scalar(env, type));
  const Napi::Array shape = Napi::Array::New(env);
  for (const uint64_t dim : dims) shape.Set(shape.Length(), double(dim));
  item.Set("shape", shape);
  item.Set("offset", double(offset));
  item.Set("bytes", double(bytes));
  return item;
}

class GgufInspection final : public Inspection {
 public:
  explicit GgufInspection(const ModelPath& path) : file_(path.file) {
    if (path.form == ModelForm::kPacked)
      packed_.emplace(path.file);
    else
      header_ = GgufFile::parse(file_->bytes(), file_->size());
    try {
      config_ = config_from_gguf(header());
    } catch (const Error& error) {
      config_error_ = error;  // a vocabulary alone, or another architecture: still worth a look
    }
  }

  Napi::Object to_js(Napi::Env env) const override {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("format", (packed_ ? "packed GGUF " : "GGUF ") + std::to_string(header().version()));
    object.Set("fileSize", double(file_->size()));
    const Napi::Array metadata = Napi::Array::New(env);
    for (const auto& [key, value] : header().metadata())
      metadata.Set(metadata.Length(), entry(env, key, value));
    object.Set("metadata", metadata);
    const Napi::Array tensors = Napi::Array::New(env);
    for (const GgufTensor& tensor : header().tensors())
      tensors.Set(tensors.Length(), tensor_object(env, tensor.name, quant_traits(tensor.type).name,
                                                  tensor.shape, tensor.offset, tensor.bytes));
    object.Set("tensors", tensors);
    if (config_) object.Set("config", maestrale::to_js(env, *config_));
    if (config_error_) object.Set("configError", config_error_->message());
    return object;
  }

 private:
  // A packed file keeps the header of the file it was made from, whose offsets it tells.
  const GgufFile& header() const { return packed_ ? packed_->gguf() : header_; }

  std::shared_ptr<const MappedFile> file_;
  std::optional<PackedFile> packed_;
  GgufFile header_;
  std::optional<ModelConfig> config_;
  std::optional<Error> config_error_;  // why there is no config
};

class DirectoryInspection final : public Inspection {
 public:
  explicit DirectoryInspection(const std::string& path)
      : files_(find_hf_files(path)), json_(read_json(path, files_.config)), shards_(path) {
    try {
      config_ = read_hf_config(path).model;
    } catch (const Error& error) {
      config_error_ = error;
    }
  }

  Napi::Object to_js(Napi::Env env) const override {
    const Napi::Object object = Napi::Object::New(env);
    object.Set("format", files_.native ? "Mistral checkpoint" : "Hugging Face checkpoint");
    object.Set("fileSize", double(shards_.bytes()));
    const Napi::Array metadata = Napi::Array::New(env);
    if (json_ && json_->object() != nullptr)
      for (const auto& [key, value] : *json_->object())
        if (const std::optional<GgufValue> plain = plain_value(value))
          metadata.Set(metadata.Length(), entry(env, key, *plain));
    object.Set("metadata", metadata);
    const Napi::Array tensors = Napi::Array::New(env);
    for (const auto& [name, shard] : shards_.tensors()) {
      const SafetensorsTensor& tensor = *shard->header.find(name);
      tensors.Set(tensors.Length(), tensor_object(env, name, dtype_name(tensor.dtype), tensor.shape,
                                                  tensor.offset, tensor.bytes));
    }
    object.Set("tensors", tensors);
    if (config_) object.Set("config", maestrale::to_js(env, *config_));
    if (config_error_) object.Set("configError", config_error_->message());
    return object;
  }

 private:
  // A scalar of the config; nothing for null, lists and objects.
  static std::optional<GgufValue> plain_value(const Json& json) {
    if (json.string() != nullptr) return std::string_view(*json.string());
    if (json.boolean()) return *json.boolean();
    if (json.integer()) return *json.integer();
    if (json.number()) return *json.number();
    return std::nullopt;
  }

  const HfFiles files_;
  const std::optional<Json> json_;
  const HfShards shards_;
  std::optional<ModelConfig> config_;
  std::optional<Error> config_error_;
};

}  // namespace

std::unique_ptr<const Inspection> inspect_path(const std::string& path) {
  const ModelPath model(path);
  if (model.form == ModelForm::kDirectory) return std::make_unique<DirectoryInspection>(path);
  return std::make_unique<GgufInspection>(model);
}

}  // namespace maestrale
