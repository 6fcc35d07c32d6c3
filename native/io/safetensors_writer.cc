// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_writer.h"

#include <utility>

#include "base/error.h"
#include "base/integer.h"
#include "base/json_text.h"

namespace maestrale {
namespace {

constexpr size_t kAlignment = 8;  // of the data, as the reference writer has it

std::string entry(const SafetensorsPlan& tensor, uint64_t offset) {
  std::string shape;
  for (const uint64_t side : tensor.shape) shape += (shape.empty() ? "" : ",") + std::to_string(side);
  return "{\"dtype\":" + json_string(dtype_name(tensor.dtype)) + ",\"shape\":[" + shape +
         "],\"data_offsets\":[" + std::to_string(offset) + "," + std::to_string(offset + tensor.bytes()) +
         "]}";
}

}  // namespace

uint64_t SafetensorsPlan::bytes() const {
  uint64_t bytes = dtype_bytes(dtype);
  for (const uint64_t side : shape) bytes *= side;
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<SafetensorsPlan>& tensors,
                                     std::function<void()> before_write)
    : file_(path, std::move(before_write)) {
  JsonObjectText header;
  header.add("__metadata__", R"({"format":"pt"})");  // transformers refuses files that do not say it
  for (const SafetensorsPlan& tensor : tensors) {
    header.add(tensor.name, entry(tensor, missing_));
    missing_ += tensor.bytes();
  }
  std::string text = header.text();
  text.resize(round_up(text.size(), kAlignment), ' ');
  const uint64_t length = text.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(std::as_bytes(std::span(text)));
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > missing_)
    throw Error(ErrorCode::kInternal, "more data than the tensors of a safetensors file have");
  file_.write(bytes);
  missing_ -= bytes.size();
}

uint64_t SafetensorsWriter::commit() {
  if (missing_ > 0)
    throw Error(ErrorCode::kInternal, "a safetensors file lacks " + std::to_string(missing_) + " bytes");
  file_.commit();
  return file_.size();
}

}  // namespace maestrale
