// SPDX-License-Identifier: Apache-2.0
// The storage types of weights, with the ids and block sizes of the GGUF specification (ggml_type), and the
// 4-bit types of bitsandbytes, which GGUF has not. A tensor row is a whole number of blocks; rows follow each
// other without padding.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace maestrale {

enum class QuantType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kNF4 = 4,  // 4 and 5 stood for types that were given up before GGUF came; no file names them
  kFP4 = 5,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

struct QuantTraits {
  QuantType type;
  std::string_view name;     // as GGUF spells it
  uint32_t items_per_block;  // weights along one row
  uint32_t bytes_per_block;
};

inline constexpr std::array<QuantTraits, 17> kQuantTraits{{
    {QuantType::kF32, "F32", 1, 4},
    {QuantType::kF16, "F16", 1, 2},
    {QuantType::kBF16, "BF16", 1, 2},
    {QuantType::kQ4_0, "Q4_0", 32, 18},
    {QuantType::kQ4_1, "Q4_1", 32, 20},
    {QuantType::kQ5_0, "Q5_0", 32, 22},
    {QuantType::kQ5_1, "Q5_1", 32, 24},
    {QuantType::kQ8_0, "Q8_0", 32, 34},
    {QuantType::kQ2_K, "Q2_K", 256, 84},
    {QuantType::kQ3_K, "Q3_K", 256, 110},
    {QuantType::kQ4_K, "Q4_K", 256, 144},
    {QuantType::kQ5_K, "Q5_K", 256, 176},
    {QuantType::kQ6_K, "Q6_K", 256, 210},
    {QuantType::kIQ4_NL, "IQ4_NL", 32, 18},
    {QuantType::kIQ4_XS, "IQ4_XS", 256, 136},
    {QuantType::kNF4, "NF4", 64, 36},
    {QuantType::kFP4, "FP4", 64, 36},
}};

constexpr const QuantTraits& quant_traits(QuantType type) {
  for (const QuantTraits& traits : kQuantTraits)
    if (traits.type == type) return traits;
  return kQuantTraits[0];  // unreachable: every enumerator is in the table
}

// "q4_k": the name as JavaScript spells it.
inline std::string lower_case_name(QuantType type) {
  std::string name(quant_traits(type).name);
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return name;
}

// Whether GGUF files may hold the type.
constexpr bool is_gguf_type(QuantType type) { return type != QuantType::kNF4 && type != QuantType::kFP4; }

// The type behind a ggml_type id of a file, or nothing when this engine does not read it.
constexpr std::optional<QuantType> quant_type_from_id(uint32_t id) {
  for (const QuantTraits& traits : kQuantTraits)
    if (uint32_t(traits.type) == id && is_gguf_type(traits.type)) return traits.type;
  return std::nullopt;
}

// Bytes of one row of `cols` weights; `cols` must be a multiple of items_per_block.
constexpr uint64_t row_bytes(QuantType type, uint64_t cols) {
  const QuantTraits& traits = quant_traits(type);
  return cols / traits.items_per_block * traits.bytes_per_block;
}

}  // namespace maestrale
