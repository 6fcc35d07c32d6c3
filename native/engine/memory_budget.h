// SPDX-License-Identifier: Apache-2.0
// How much memory the process may still take, and what the KV cache gets of it.
#pragma once

#include <cstdint>

namespace maestrale {

// Bytes that can be taken now without swapping: the smaller of what the machine has and what the cgroup
// (v2 or v1) leaves. A large number when the system says nothing.
uint64_t available_memory();

// Pages of `page_bytes` for `max_sequences` sequences of at most `pages_per_sequence`, within
// 80 % of `available` bytes. Throws Error{kOutOfMemory} when not even one page fits.
int64_t kv_pages_within(uint64_t available, uint64_t page_bytes, int64_t pages_per_sequence,
                        int32_t max_sequences);

// The memory of which kv_pages_within() gives `page_bytes` bytes to pages.
uint64_t memory_for_pages(uint64_t page_bytes);

}  // namespace maestrale
