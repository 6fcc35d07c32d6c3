// SPDX-License-Identifier: Apache-2.0
// Reads the header of a GGUF file of our own making into the form that the writer takes. For trusted
// files only; the native reader is the one that checks.
import { readFileSync } from 'node:fs'

import { VALUE_TYPES } from './types.mjs'

/** `{ version, metadata: { key: { type, elementType?, data } }, tensors: [{ name, typeId, shape, offset }], dataStart }` */
export function readGgufHeader(path) {
  const file = readFileSync(path)
  if (file.toString('latin1', 0, 4) !== 'GGUF') throw new Error(`${path} is no GGUF file`)
  let at = 4
  const advance = (bytes) => {
    at += bytes
    return at - bytes
  }
  const u32 = () => file.readUInt32LE(advance(4))
  const u64 = () => Number(file.readBigUInt64LE(advance(8)))
  const string = () => {
    const bytes = u64()
    const start = advance(bytes)
    return file.subarray(start, start + bytes)
  }
  const readers = {
    u8: () => file.readUInt8(advance(1)),
    i8: () => file.readInt8(advance(1)),
    u16: () => file.readUInt16LE(advance(2)),
    i16: () => file.readInt16LE(advance(2)),
    u32,
    i32: () => file.readInt32LE(advance(4)),
    f32: () => file.readFloatLE(advance(4)),
    bool: () => file.readUInt8(advance(1)) !== 0,
    string: () => string().toString('utf8'),
    u64: () => file.readBigUInt64LE(advance(8)),
    i64: () => file.readBigInt64LE(advance(8)),
    f64: () => file.readDoubleLE(advance(8)),
  }
  const version = u32()
  const nTensors = u64()
  const nMetadata = u64()
  const metadata = {}
  for (let i = 0; i < nMetadata; i++) {
    const key = readers.string()
    const type = VALUE_TYPES[u32()]
    if (type === 'array') {
      const elementType = VALUE_TYPES[u32()]
      metadata[key] = {
        type,
        elementType,
        data: Array.from({ length: u64() }, readers[elementType]),
      }
    } else {
      metadata[key] = { type, data: readers[type]() }
    }
  }
  const tensors = []
  for (let i = 0; i < nTensors; i++) {
    const name = readers.string()
    const shape = Array.from({ length: u32() }, u64)
    tensors.push({ name, shape, typeId: u32(), offset: u64() })
  }
  const alignment = metadata['general.alignment']?.data ?? 32
  return { version, metadata, tensors, dataStart: Math.ceil(at / alignment) * alignment }
}
