// SPDX-License-Identifier: Apache-2.0
// The part of protobuf's wire format that model files use (protobuf.dev/programming-guides/encoding):
//
//   message = { key: varint = field << 3 | wire type, value }
//   wire types: 0 varint, 1 eight bytes, 2 varint length and bytes, 5 four bytes
//
// Every length is checked against what encloses it; a message is a view into the file, never a copy.
#include "tokenizer/spm_vocab.h"

#include <bit>
#include <cstring>
#include <string>
#include <string_view>

#include "base/error.h"

namespace maestrale {
namespace {

constexpr int kVarint = 0, kEightBytes = 1, kBytes = 2, kFourBytes = 5;
constexpr int32_t kMaxPieces = 1 << 20;

// The fields of one message, in file order. `origin` is the file's first byte, for messages about errors.
class Message {
 public:
  Message(std::string_view bytes, const char* origin) : rest_(bytes), origin_(origin) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    start_ = rest_.data();
    const uint64_t key = varint();
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) fail("a field has an impossible number");
    field_ = int32_t(key >> 3);
    wire_type_ = int(key & 7);
    switch (wire_type_) {
      case kVarint: number_ = varint(); break;
      case kEightBytes: bytes_ = take(8); break;
      case kBytes: bytes_ = take(varint()); break;
      case kFourBytes: bytes_ = take(4); break;
      default: fail("field " + std::to_string(field_) + " has a wire type that does not exist");
    }
    return true;
  }

  int32_t field() const { return field_; }

  uint64_t number() const {
    expect(kVarint);
    return number_;
  }
  bool flag() const { return number() != 0; }
  float real() const {
    expect(kFourBytes);
    float value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }
  std::string_view bytes() const {
    expect(kBytes);
    return bytes_;
  }
  Message message() const { return {bytes(), origin_}; }

  [[noreturn]] void fail(const std::string& problem) const {
    throw Error(ErrorCode::kModelFormat, "the SentencePiece model is damaged at byte " +
                                             std::to_string(start_ - origin_) + ": " + problem);
  }

 private:
  void expect(int wire_type) const {
    if (wire_type_ != wire_type)
      fail("field " + std::to_string(field_) + " has wire type " + std::to_string(wire_type_) +
           " instead of " + std::to_string(wire_type));
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = uint8_t(take(1)[0]);
      if (shift == 63 && byte > 1) break;  // beyond 64 bits
      value |= uint64_t(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number has more than 64 bits");
  }

  std::string_view take(uint64_t n) {
    if (n > rest_.size())
      fail("a field needs " + std::to_string(n) + " bytes, but " + std::to_string(rest_.size()) + " remain");
    const std::string_view taken = rest_.substr(0, size_t(n));
    rest_.remove_prefix(size_t(n));
    return taken;
  }

  std::string_view rest_;
  const char* origin_;
  const char* start_ = origin_;  // of the current field
  int32_t field_ = 0;
  int wire_type_ = kVarint;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

[[noreturn]] void unsupported(const std::string& problem) {
  throw Error(ErrorCode::kModelUnsupported, "the SentencePiece model " + problem);
}

void read_piece(Message piece, Vocab& vocab) {
  std::string text;
  float score = 0.0f;
  uint64_t type = uint64_t(PieceType::kNormal);
  while (piece.next()) {
    switch (piece.field()) {
      case 1: text = piece.bytes(); break;
      case 2: score = piece.real(); break;
      case 3: type = piece.number(); break;
      default: break;
    }
  }
  if (type < uint64_t(PieceType::kNormal) || type > uint64_t(PieceType::kByte))
    piece.fail("piece " + std::to_string(vocab.size()) + " has the unknown type " + std::to_string(type));
  if (vocab.size() == kMaxPieces) piece.fail("it has more than " + std::to_string(kMaxPieces) + " pieces");
  vocab.pieces.push_back(std::move(text));
  vocab.scores.push_back(score);
  vocab.types.push_back(PieceType(type));
}

// A control token that the training options call by its id; -1 means that there is none.
int32_t special_id(const Message& trainer) {
  const int64_t id = std::bit_cast<int64_t>(trainer.number());
  if (id < -1 || id >= kMaxPieces) trainer.fail(std::to_string(id) + " is no token id");
  return int32_t(id);
}

void read_trainer(Message trainer, Vocab& vocab) {
  constexpr uint64_t kBpe = 2;
  uint64_t model_type = 1;  // unigram, the default of the format
  bool byte_fallback = false;
  while (trainer.next()) {
    switch (trainer.field()) {
      case 3: model_type = trainer.number(); break;
      case 24:
        if (trainer.flag()) unsupported("puts the space mark behind words, as Mistral's do not");
        break;
      case 35: byte_fallback = trainer.flag(); break;
      case 40: vocab.unk = special_id(trainer); break;
      case 41: vocab.bos = special_id(trainer); break;
      case 42: vocab.eos = special_id(trainer); break;
      default: break;
    }
  }
  if (model_type != kBpe) unsupported("is not of the kind BPE, which Mistral's are");
  if (!byte_fallback) unsupported("has no byte pieces for unknown characters, as Mistral's have");
}

void read_normalizer(Message normalizer, Vocab& vocab) {
  bool remove_whitespaces = true, escape_whitespaces = true;  // the defaults of the format
  while (normalizer.next()) {
    switch (normalizer.field()) {
      case 2:
        if (!normalizer.bytes().empty())
          unsupported("replaces characters before it splits, as Mistral's do not");
        break;
      case 3: vocab.add_space_prefix = normalizer.flag(); break;
      case 4: remove_whitespaces = normalizer.flag(); break;
      case 5: escape_whitespaces = normalizer.flag(); break;
      default: break;
    }
  }
  if (remove_whitespaces) unsupported("removes repeated spaces, as Mistral's do not");
  if (!escape_whitespaces) unsupported("leaves spaces as they are, as Mistral's do not");
}

}  // namespace

Vocab vocab_from_spm(std::span<const std::byte> file) {
  const std::string_view all(reinterpret_cast<const char*>(file.data()), file.size());
  Vocab vocab;
  bool has_trainer = false, has_normalizer = false;
  for (Message model(all, all.data()); model.next();) {
    switch (model.field()) {
      case 1: read_piece(model.message(), vocab); break;
      case 2:
        read_trainer(model.message(), vocab);
        has_trainer = true;
        break;
      case 3:
        read_normalizer(model.message(), vocab);
        has_normalizer = true;
        break;
      default: break;
    }
  }
  if (vocab.pieces.empty() || !has_trainer || !has_normalizer)
    throw Error(ErrorCode::kModelFormat, "the SentencePiece model is incomplete: it has " +
                                             std::to_string(vocab.size()) + " pieces, " +
                                             (has_trainer ? "its" : "no") + " training options and " +
                                             (has_normalizer ? "its" : "no") + " normaliser");
  return vocab;
}

}  // namespace maestrale
