// SPDX-License-Identifier: Apache-2.0
// Sums and the JSON form of counters, from one list of fields.
#include "exec/counters.h"

namespace maestrale::ptxsim {
namespace {

struct Field {
  const char* name;
  uint64_t Counters::*member;
};
constexpr Field kFields[] = {
    {"launches", &Counters::launches},
    {"warpInstructions", &Counters::warp_instructions},
    {"threadInstructions", &Counters::thread_instructions},
    {"divergentBranches", &Counters::divergent_branches},
    {"globalRequests", &Counters::global_requests},
    {"globalBytes", &Counters::global_bytes},
    {"sectorsRequested", &Counters::sectors_requested},
    {"uniqueReadSectors", &Counters::unique_read_sectors},
    {"uniqueWrittenSectors", &Counters::unique_written_sectors},
    {"sharedRequests", &Counters::shared_requests},
    {"sharedWavefronts", &Counters::shared_wavefronts},
    {"sharedIdealWavefronts", &Counters::shared_ideal_wavefronts},
    {"localRequests", &Counters::local_requests},
    {"mma", &Counters::mma},
    {"dp4a", &Counters::dp4a},
    {"shuffles", &Counters::shuffles},
    {"votes", &Counters::votes},
    {"barriers", &Counters::barriers},
    {"atomics", &Counters::atomics},
    {"asyncCopyBytes", &Counters::async_copies},
};
static_assert(sizeof(kFields) / sizeof(Field) == sizeof(Counters) / sizeof(uint64_t));

}  // namespace

void Counters::add(const Counters& other) {
  for (const Field& f : kFields) this->*f.member += other.*f.member;
}

std::string Counters::json() const {
  std::string text = "{";
  for (const Field& f : kFields) {
    if (text.size() > 1) text += ",";
    text += "\"" + std::string(f.name) + "\":" + std::to_string(this->*f.member);
  }
  return text + "}";
}

}  // namespace maestrale::ptxsim
