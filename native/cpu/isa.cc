// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"

#include <cstdlib>

#include "base/error.h"
#include "cpu/cpu_backend.h"

#if defined(__aarch64__) && !defined(MAESTRALE_FEW_TABLES)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace maestrale {
namespace {

struct Table {
  const char* name;
  const Kernels* kernels;  // null: not built for this architecture
  bool (*runs)();
  GemmKernel bf16 = nullptr;  // BF16 products of its own, not of the scalar bits: taken only when named
};

bool always() { return true; }
bool never() { return false; }

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
#ifndef MAESTRALE_FEW_TABLES
bool has_avxvnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
bool has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
bool has_avx512bf16() { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
#endif
constexpr Table kTables[] = {
// best first
#ifdef MAESTRALE_FEW_TABLES
    {"avx512bf16", nullptr, never},      {"avx512vnni", nullptr, never}, {"avxvnni", nullptr, never},
#else
    {"avx512bf16", &kAvx512VnniKernels, has_avx512bf16, gemm_avx512bf16},
    {"avx512vnni", &kAvx512VnniKernels, has_avx512vnni},
    {"avxvnni", &kAvxVnniKernels, has_avxvnni},
#endif
    {"avx2", &kAvx2Kernels, has_avx2},   {"neon-i8mm", nullptr, never},  {"neon", nullptr, never},
    {"scalar", &kScalarKernels, always},
};
#elif defined(__aarch64__) && !defined(MAESTRALE_FEW_TABLES)
bool has_neon() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
bool has_neon_i8mm() { return has_neon() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0; }
constexpr Table kTables[] = {
    // best first
    {"neon-i8mm", &kNeonI8mmKernels, has_neon_i8mm},
    {"neon", &kNeonKernels, has_neon},
    {"avx512bf16", nullptr, never},
    {"avx512vnni", nullptr, never},
    {"avxvnni", nullptr, never},
    {"avx2", nullptr, never},
    {"scalar", &kScalarKernels, always},
};
#else
constexpr Table kTables[] = {
    {"avx512bf16", nullptr, never},      {"avx512vnni", nullptr, never},
    {"avxvnni", nullptr, never},         {"avx2", nullptr, never},
    {"neon-i8mm", nullptr, never},       {"neon", nullptr, never},
    {"scalar", &kScalarKernels, always},
};
#endif

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// A table with products of its own for BF16, made when it is first asked for.
const Kernels& with_bf16(const Table& table) {
  static const Kernels kernels = [&] {
    Kernels copy = *table.kernels;
    copy.name = table.name;
    copy.gemm[int(QuantType::kBF16)] = table.bf16;
    return copy;
  }();
  return kernels;
}

// Names of the tables that this machine runs: those with the scalar bits, or those taken only when named.
std::vector<std::string> runnable(bool named) {
  std::vector<std::string> names;
  for (const Table& table : kTables)
    if (table.runs() && (table.bf16 != nullptr) == named) names.push_back(table.name);
  return names;
}

}  // namespace

std::vector<std::string> available_isas() { return runnable(false); }
std::vector<std::string> named_isas() { return runnable(true); }

const Kernels& select_kernels(const std::string& name) {
  std::string wanted = name;
  if (wanted.empty()) {
    const char* forced = std::getenv("MAESTRALE_ISA");
    wanted = forced != nullptr ? forced : "";
  }
  for (const Table& table : kTables) {
    if (wanted.empty() ? table.runs() && table.bf16 == nullptr : wanted == table.name) {
      if (!table.runs())
        throw Error(ErrorCode::kDevice, "this machine cannot run the kernel table \"" + wanted +
                                            "\"; it runs " + join(available_isas()));
      return table.bf16 == nullptr ? *table.kernels : with_bf16(table);
    }
  }
  throw Error(ErrorCode::kInvalidArg,
              "unknown kernel table \"" + wanted + "\"; this machine runs " + join(available_isas()));
}

}  // namespace maestrale
