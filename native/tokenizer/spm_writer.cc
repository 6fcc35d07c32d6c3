// SPDX-License-Identifier: Apache-2.0
// Protobuf as spm_vocab.cc describes it.
#include "tokenizer/spm_writer.h"

#include <cstdint>
#include <string_view>

namespace maestrale {
namespace {

class Message {
 public:
  Message& add_number(uint32_t field, uint64_t value) {
    key(field, 0);
    varint(value);
    return *this;
  }
  Message& add_real(uint32_t field, float value) {
    key(field, 5);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Message& add_bytes(uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void key(uint32_t field, uint32_t wire_type) { varint(field << 3 | wire_type); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += char(value | 0x80);
    bytes_ += char(value);
  }

  std::string bytes_;
};

}  // namespace

std::string spm_model(const Vocab& vocab) {
  Message model;
  for (size_t i = 0; i < vocab.pieces.size(); ++i)
    model.add_bytes(1, Message()
                           .add_bytes(1, vocab.pieces[i])
                           .add_real(2, vocab.scores[i])
                           .add_number(3, uint64_t(vocab.types[i]))
                           .bytes());
  model.add_bytes(2, Message()
                         .add_number(3, 2)  // BPE
                         .add_number(4, uint64_t(vocab.size()))
                         .add_number(35, 1)  // byte pieces
                         .add_number(40, uint64_t(vocab.unk))
                         .add_number(41, uint64_t(vocab.bos))
                         .add_number(42, uint64_t(vocab.eos))
                         .add_number(43, ~uint64_t{0})  // no padding: -1
                         .bytes());
  model.add_bytes(3, Message()
                         .add_bytes(1, "identity")
                         .add_number(3, vocab.add_space_prefix)
                         .add_number(4, 0)  // repeated spaces stay
                         .add_number(5, 1)  // spaces become U+2581
                         .bytes());
  return model.bytes();
}

}  // namespace maestrale
