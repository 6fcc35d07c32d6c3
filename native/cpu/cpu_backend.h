// SPDX-License-Identifier: Apache-2.0
// The CPU implementation of Backend.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace maestrale {

struct CpuOptions {
  int32_t threads = 0;  // 0: as many as the CPUs this process may use
  std::string isa;      // force a kernel table by name; "": $MAESTRALE_ISA, else the best of the machine
  // Storage that loads have filled before (see cpu_weights), 64-byte aligned: matrices are taken from it in
  // the same order, and nothing is read from their sources. The backend keeps the owner.
  std::span<const std::byte> weights;
  std::shared_ptr<const void> weights_owner;
};

// Throws Error{kInvalidArg} for an unknown table, Error{kDevice} for one this machine cannot run.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

// The reserved storage of a CPU backend, as its load_table and load_matrix calls have filled it: rows as they
// were stored, and panels (panel_layout.h), in the order of the calls. The bytes that each has taken.
std::span<const std::byte> cpu_weights(const Backend& backend);
uint64_t cpu_table_bytes(QuantType type, int64_t rows, int64_t cols);
uint64_t cpu_matrix_bytes(QuantType type, int64_t rows, int64_t cols);

// Names of the kernel tables this machine can run, best first; the last one is "scalar".
std::vector<std::string> available_isas();
// Those that are taken only when named, since their results are not the bits of the others.
std::vector<std::string> named_isas();

}  // namespace maestrale
