// SPDX-License-Identifier: Apache-2.0
// What weights can be quantised to.

/** From the most to the fewest bits a weight. */
export const QUANTIZE_TYPES = [
  'f32',
  'f16',
  'bf16',
  'q8_0',
  'q6_k',
  'q5_k_m',
  'q5_k',
  'q5_1',
  'q5_0',
  'q4_k_m',
  'q4_k_s',
  'q4_k',
  'q4_1',
  'q4_0',
  'q3_k_m',
  'q3_k',
  'q2_k',
] as const

/**
 * A storage type for all matrices (the output matrix gets at least Q6_K), or one of the mixes in which models
 * are published (`q3_k_m`, `q4_k_s`, `q4_k_m`, `q5_k_m`, `q2_k`), with the rules of llama.cpp.
 */
export type QuantizeType = (typeof QUANTIZE_TYPES)[number]

/** While loading, those of bitsandbytes too. */
export type LoadType = 'nf4' | 'fp4' | QuantizeType

export const LOAD_TYPES: readonly LoadType[] = ['nf4', 'fp4', ...QUANTIZE_TYPES]
