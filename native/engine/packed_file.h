// SPDX-License-Identifier: Apache-2.0
// Packed images (.maestrale): the weights of a GGUF file as the CPU computes with them, so that loading is
// mapping, and processes share the pages. The same on all instruction sets of one byte order.
//
//   0    magic "MAESTRAL", u32 byte order 0x01020304, u32 layout version,
//   16   u64 sizes: this file, the GGUF file it was made of, GGUF header, norms, weights
//   56   u64 FNV-1a of bytes 0..55, the GGUF header and the norms
//   64   the GGUF header up to its first tensor (metadata, tensor types and shapes; its offsets mean the
//   source)
//        norms as f32, in the order of the forward pass, from the next multiple of 64
//        what a backend's reserved storage holds after a load, from the next multiple of 4096
//
// The weights are used where they are mapped: a process that computes with a file that another one
// shortens is ended by the system (SIGBUS). Replace such a file by renaming a new one, as
// pack_model() does; never write into it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "cpu/cpu_backend.h"
#include "io/gguf.h"
#include "io/mapped_file.h"
#include "model/loader.h"

namespace maestrale {

class PackedFile {
 public:
  static bool has_magic(const MappedFile& file);

  // Checks every size against the real file before it is used, then the checksum. Throws
  // Error{kModelFormat}, also for a layout of another version.
  explicit PackedFile(std::shared_ptr<const MappedFile> file);

  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  const GgufFile& gguf() const { return gguf_; }
  std::span<const std::byte> norms() const { return norms_; }
  std::span<const std::byte> weights() const { return weights_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  GgufFile gguf_;
  std::span<const std::byte> norms_, weights_;
};

// The tensors of a packed file. Rows come out as they were in the GGUF file; a backend that
// load_packed_model() makes takes the matrices in place instead. `packed` must outlive it.
class PackedWeights final : public WeightStore {
 public:
  // Throws as GgufWeights does, and when norms or weights are not as long as `config` demands.
  PackedWeights(const PackedFile& packed, const ModelConfig& config);
  QuantType type(const ModelTensor& tensor) const override;
  std::unique_ptr<const MatrixSource> open(const ModelTensor& tensor) const override;

 private:
  const PackedFile& packed_;
  std::map<std::string, uint64_t, std::less<>> offsets_;  // in norms() or weights(), by name
};

// A model on the CPU whose weights stay in the file, which it keeps open.
std::unique_ptr<Model> load_packed_model(const PackedFile& packed, ModelConfig config, CpuOptions options,
                                         const LoadCallbacks& callbacks);

// Packs the GGUF file `in` to `out`, which appears at once when it is complete and on disk. Takes the memory
// of the model meanwhile. Throws Error: kInvalidArg when `out` cannot be written or is `in`.
void pack_model(const std::string& in, const std::string& out, const LoadCallbacks& callbacks);

}  // namespace maestrale
