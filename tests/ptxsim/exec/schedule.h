// SPDX-License-Identifier: Apache-2.0
// How one warp advances: which group of lanes runs, what happens when it diverges, and when lanes that
// wait for each other may go on.
#pragma once

#include "exec/cta.h"

namespace maestrale::ptxsim {

enum class Stop : uint8_t { kFinished, kBarrier, kYielded };

// Runs until the warp waits at a CTA barrier, ends, or has yielded.
Stop run_warp(Warp& w);

// Puts every live lane of the warp at the program's start.
void start_warp(Warp& w);

// The groups that waited at the CTA barrier go on behind it.
void release_from_barrier(Warp& w);

// The barrier instruction the warp waits at.
const Op& barrier_of(const Warp& w);

// A warp has come to barrier `op`; wakes those it completes. Also to be called when a warp ended.
void arrive_at_barrier(Cta& cta, Warp& w, const Op& op, uint32_t mask, bool waits);
void complete_barriers(Cta& cta);

}  // namespace maestrale::ptxsim
