// SPDX-License-Identifier: Apache-2.0
// The work both engines get.

/** Decoding steps of one measurement. */
export const DECODE_STEPS = 16

/** Prompt lengths of the sequences that run together. */
export const PREFIXES = Array.from({ length: 16 }, (_, i) => 8 + i)

/** n token ids that any 32,000-token vocabulary has, different for every salt, without control tokens. */
export function ids(n, salt) {
  return Array.from({ length: n }, (_, i) => 300 + ((i * 7919 + salt * 104_729) % 31_000))
}

export async function median(n, measure) {
  const values = []
  for (let i = 0; i < n; i++) values.push(await measure(i))
  return values.sort((a, b) => a - b)[(n - 1) >> 1]
}
