// SPDX-License-Identifier: Apache-2.0
// The work both engines get.

/** Decoding steps of one measurement. */
export const DECODE_STEPS = 16

/** Prompt lengths of n sequences that run together. */
export const prefixes = (n) => Array.from({ length: n }, (_, i) => 8 + i)

/** n token ids that any 32,000-token vocabulary has, different for every salt, without control tokens. */
export function ids(n, salt) {
  return Array.from({ length: n }, (_, i) => 300 + ((i * 7919 + salt * 104_729) % 31_000))
}

/** What is measured in each kind of work, for which an engine is started, and how often in turn. */
export const WORK = {
  short: { prefill_512: 3, decode_1: 5, ttft_16: 3 },
  concurrent: { decode_8: 3, decode_16: 3 },
  long: { prefill_4096: 1, decode_1_at_4096: 5 },
  abandon: { abandon_1000: 1 },
}

/** Tokens of the longest timeline of each kind of work, and room for a little more. */
export const CONTEXT = { short: 1024, concurrent: 256, long: 4096 + 64, abandon: 1064 }
