// SPDX-License-Identifier: Apache-2.0
// The numbers of the GGUF specification that its writer and reader share: metadata value types and
// tensor storage types.

export const VALUE_TYPES = [
  'u8',
  'i8',
  'u16',
  'i16',
  'u32',
  'i32',
  'f32',
  'bool',
  'string',
  'array',
  'u64',
  'i64',
  'f64',
]

// name: [ggml_type id, items per block, bytes per block]
const TENSOR_TYPES = {
  f32: [0, 1, 4],
  f16: [1, 1, 2],
  q4_0: [2, 32, 18],
  q4_1: [3, 32, 20],
  q5_0: [6, 32, 22],
  q5_1: [7, 32, 24],
  q8_0: [8, 32, 34],
  q2_k: [10, 256, 84],
  q3_k: [11, 256, 110],
  q4_k: [12, 256, 144],
  q5_k: [13, 256, 176],
  q6_k: [14, 256, 210],
  iq4_nl: [20, 32, 18],
  iq4_xs: [23, 256, 136],
  bf16: [30, 1, 2],
}

/** `{ id, itemsPerBlock, bytesPerBlock }` of a storage type; throws for an unknown name. */
export function tensorType(name) {
  const entry = TENSOR_TYPES[name]
  if (!entry)
    throw new Error(`unknown tensor type '${name}'; known: ${Object.keys(TENSOR_TYPES).join(', ')}`)
  const [id, itemsPerBlock, bytesPerBlock] = entry
  return { id, itemsPerBlock, bytesPerBlock }
}

/** Bytes of a tensor; `shape[0]` is the contiguous dimension and must hold whole blocks. */
export function tensorBytes(type, shape) {
  const { itemsPerBlock, bytesPerBlock } = tensorType(type)
  if (shape[0] % itemsPerBlock !== 0)
    throw new Error(`${shape[0]} is no multiple of ${type}'s block of ${itemsPerBlock}`)
  return (shape.reduce((product, dim) => product * dim, 1) / itemsPerBlock) * bytesPerBlock
}
