// SPDX-License-Identifier: Apache-2.0
// The 4-bit matrices of bitsandbytes checkpoints. For a weight P the file holds
//
//   P                                     codes, two a byte (any dtype: the bytes count)
//   P.quant_map                           F32 (16)
//   P.absmax                              F32 (blocks), or with double quantisation U8 (blocks)
//   P.nested_absmax, P.nested_quant_map   F32 (ceil(blocks / nested_blocksize)), F32 (256)
//   P.quant_state.bitsandbytes__nf4       JSON: quant_type, blocksize, dtype, shape, nested_*    (or __fp4)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "quant/matrix_source.h"
#include "quant/nf4.h"

namespace maestrale {

struct FourBitMatrix {
  FourBitType type = FourBitType::kNF4;
  QuantType dtype = QuantType::kBF16;  // F32, F16 or BF16: what the weights were, and dequantise to
  int64_t rows = 0, cols = 0;
  int64_t block_size = 0;     // divides cols
  FourBitTable table{};       // of the file, which need not be ours
  std::vector<float> absmax;  // (rows, cols / block_size), double quantisation undone
  uint64_t codes_offset = 0;  // absolute byte offset of rows * cols / 2 bytes
};

// Whether `name` is a 4-bit matrix, i.e. has a quant_state.
bool is_four_bit(const SafetensorsFile& header, const std::string& name);

// Reads and checks all that belongs to the matrix `name` but its codes. Throws Error{kModelFormat} naming
// the tensor at fault, Error{kModelUnsupported} for blocks that cross rows.
FourBitMatrix read_four_bit(const MappedFile& file, const SafetensorsFile& header, const std::string& name);

// The rows of a 4-bit matrix: as blocks of QuantType::kNF4 or kFP4 where the file's table is ours, its blocks
// are whole blocks of ours and its scales fit; in its original dtype otherwise. `file` must outlive the
// source.
std::unique_ptr<const MatrixSource> open_four_bit(const MappedFile& file, FourBitMatrix matrix);

// The rows of a 4-bit matrix in its original dtype, exactly as bitsandbytes dequantises them.
class FourBitSource final : public MatrixSource {
 public:
  FourBitSource(const MappedFile& file, FourBitMatrix matrix);  // `file` must outlive the source
  void read_rows(int64_t first_row, int64_t n_rows, std::byte* out) const override;

 private:
  const MappedFile& file_;
  const FourBitMatrix matrix_;
};

}  // namespace maestrale
