// SPDX-License-Identifier: Apache-2.0
// Writes GGUF files. Tensor data are streamed: a file of many gigabytes needs memory for its header
// and one chunk only.
//
//   writeGguf('tiny.gguf', {
//     metadata: { 'general.architecture': value('string', 'llama'), 'llama.block_count': value('u32', 1) },
//     tensors: [{ name: 'output_norm.weight', type: 'f32', shape: [4], data: [chunk, chunk] }],
//   })
import { closeSync, openSync, writeSync } from 'node:fs'

import { tensorBytes, tensorType, VALUE_TYPES } from './types.mjs'

/** A metadata value with its type, e.g. `value('u32', 7)`. */
export const value = (type, data) => ({ type, data })

/** A metadata array, e.g. `array('string', ['a', 'b'])`. */
export const array = (elementType, data) => ({ type: 'array', elementType, data })

const padding = (offset, alignment) => (alignment - (offset % alignment)) % alignment

// The Buffer method that writes a number of each type, and its bytes.
const NUMBERS = {
  u8: ['writeUInt8', 1],
  i8: ['writeInt8', 1],
  u16: ['writeUInt16LE', 2],
  i16: ['writeInt16LE', 2],
  u32: ['writeUInt32LE', 4],
  i32: ['writeInt32LE', 4],
  f32: ['writeFloatLE', 4],
  u64: ['writeBigUInt64LE', 8],
  i64: ['writeBigInt64LE', 8],
  f64: ['writeDoubleLE', 8],
}

class ByteSink {
  #chunks = []
  #small = Buffer.alloc(8)

  number(type, data) {
    const [method, bytes] = NUMBERS[type]
    this.#small[method](bytes === 8 && type !== 'f64' ? BigInt(data) : data)
    this.#chunks.push(Buffer.from(this.#small.subarray(0, bytes)))
  }

  // `text` may be a string or, to write bytes that are no UTF-8, a Uint8Array.
  string(text) {
    const bytes = Buffer.from(text)
    this.number('u64', bytes.length)
    this.#chunks.push(bytes)
  }

  value(type, data) {
    if (type === 'string') this.string(data)
    else if (type === 'bool') this.number('u8', data ? 1 : 0)
    else this.number(type, data)
  }

  raw(bytes) {
    this.#chunks.push(bytes)
  }

  finish() {
    return Buffer.concat(this.#chunks)
  }
}

function valueTypeId(type) {
  const id = VALUE_TYPES.indexOf(type)
  if (id < 0) throw new Error(`unknown metadata type '${type}'`)
  return id
}

/**
 * The bytes of a GGUF header up to the first tensor's data. `alignment` is recorded in the metadata
 * when it is not the default. Tensors lie in the order given, each at a multiple of the alignment.
 */
export function encodeHeader({ version = 3, alignment = 32, metadata = {}, tensors = [] }) {
  const entries = Object.entries(metadata)
  if (alignment !== 32) entries.push(['general.alignment', value('u32', alignment)])
  const sink = new ByteSink()
  sink.raw(Buffer.from('GGUF'))
  sink.number('u32', version)
  sink.number('u64', tensors.length)
  sink.number('u64', entries.length)
  for (const [key, { type, elementType, data }] of entries) {
    sink.string(key)
    sink.number('u32', valueTypeId(type))
    if (type === 'array') {
      sink.number('u32', valueTypeId(elementType))
      sink.number('u64', data.length)
      for (const element of data) sink.value(elementType, element)
    } else {
      sink.value(type, data)
    }
  }
  let offset = 0
  for (const { name, type, shape } of tensors) {
    sink.string(name)
    sink.number('u32', shape.length)
    for (const dim of shape) sink.number('u64', dim)
    sink.number('u32', tensorType(type).id)
    sink.number('u64', offset)
    const bytes = tensorBytes(type, shape)
    offset += bytes + padding(bytes, alignment)
  }
  const header = sink.finish()
  return Buffer.concat([header, Buffer.alloc(padding(header.length, alignment))])
}

function writeAll(fd, bytes) {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done)
}

/**
 * Writes a whole file and returns its size in bytes. `tensor.data` is an iterable of Uint8Array chunks,
 * consumed once, which together must have exactly the tensor's size.
 */
export function writeGguf(path, model) {
  const { alignment = 32, tensors = [] } = model
  const header = encodeHeader(model)
  const fd = openSync(path, 'w')
  try {
    let size = header.length
    writeAll(fd, header)
    for (const { name, type, shape, data } of tensors) {
      const expected = tensorBytes(type, shape)
      let bytes = 0
      for (const chunk of data) {
        writeAll(fd, chunk)
        bytes += chunk.length
      }
      if (bytes !== expected)
        throw new Error(
          `tensor '${name}' has ${bytes} bytes of data, but its shape needs ${expected}`,
        )
      const pad = padding(bytes, alignment)
      writeAll(fd, Buffer.alloc(pad))
      size += bytes + pad
    }
    return size
  } finally {
    closeSync(fd)
  }
}
