// SPDX-License-Identifier: Apache-2.0
// The files of tests/vectors, and the distance from them.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export const vectorsPath = (name: string): string =>
  fileURLToPath(new URL(`vectors/${name}`, import.meta.url))

export type Tensors = ReadonlyMap<string, Int32Array | Float32Array>

/** The i32 and f32 tensors of a safetensors file below tests/vectors. */
export function readTensors(name: string): Tensors {
  const file = readFileSync(vectorsPath(name))
  const data = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, data))
  const tensors = new Map<string, Int32Array | Float32Array>()
  for (const [key, { dtype, data_offsets: range }] of Object.entries<{
    dtype: string
    data_offsets: [number, number]
  }>(header)) {
    // A copy of its own, since a view would have to be aligned.
    const bytes = Uint8Array.from(file.subarray(data + range[0], data + range[1])).buffer
    if (dtype === 'I32') tensors.set(key, new Int32Array(bytes))
    if (dtype === 'F32') tensors.set(key, new Float32Array(bytes))
  }
  return tensors
}

/** |got - want|^2 / |want|^2 */
export function nmse(got: Float32Array, want: Float32Array): number {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY
  let [error, power] = [0, 0]
  want.forEach((value, i) => {
    error += ((got[i] ?? Number.NaN) - value) ** 2
    power += value ** 2
  })
  return error / power
}

/** Whether all values have the same bits; toEqual() takes seconds for a million. */
export function sameBits(one: Float32Array, two: Float32Array): boolean {
  const bytes = (values: Float32Array) =>
    new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  return Buffer.compare(bytes(one), bytes(two)) === 0
}
