// SPDX-License-Identifier: Apache-2.0
// Weights that are quantised while they are loaded, and packed files: the model of the file that holds them so.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'

import { type LoadOptions, quantizeModel } from '../../lib/index.js'
import { sameBits, vectorsPath } from '../reference.js'
import { contract } from './device.js'

const tokens = [1, 17, 5, 90, 33, 2, 64, 8, 41, 3]

/** Copies a PEFT adapter and gives each of its matrices a magnitude of ones. */
function makeDora(from: string, to: string): void {
  mkdirSync(to)
  const config = JSON.parse(readFileSync(join(from, 'adapter_config.json'), 'utf8'))
  writeFileSync(join(to, 'adapter_config.json'), JSON.stringify({ ...config, use_dora: true }))
  const file = readFileSync(join(from, 'adapter_model.safetensors'))
  const start = 8 + Number(file.readBigUInt64LE())
  const header = JSON.parse(file.toString('utf8', 8, start))
  const parts = [file.subarray(start)]
  let end = file.length - start
  for (const [name, { shape }] of Object.entries<{ shape: number[] }>(header)) {
    if (!name.endsWith('lora_B.weight')) continue
    const ones = Buffer.from(new Float32Array(shape[0] ?? 0).fill(1).buffer)
    header[name.replace('lora_B.weight', 'lora_magnitude_vector')] = {
      dtype: 'F32',
      shape: [shape[0]],
      data_offsets: [end, end + ones.length],
    }
    parts.push(ones)
    end += ones.length
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(join(to, 'adapter_model.safetensors'), Buffer.concat([length, text, ...parts]))
}

contract(({ load }) => {
  let folder: string
  let output: string

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'maestrale-quantization-'))
    output = join(folder, 'out.gguf')
  })
  afterEach(() => rmSync(folder, { recursive: true }))

  const logits = async (path: string, options: LoadOptions = {}, adapter?: string) => {
    await using model = await load(path, options)
    const { name } = adapter === undefined ? {} : await model.loadAdapter(adapter)
    const values = await model.logits(tokens, name === undefined ? {} : { adapter: name })
    return { values, quantization: model.info.quantization }
  }
  const expectSame = async (one: Float32Array, path: string, adapter?: string) => {
    const two = (await logits(path, {}, adapter)).values
    expect(sameBits(one, two)).toBe(true)
  }

  test('gives the logits of the file that quantizeModel writes', async () => {
    await quantizeModel(vectorsPath('hf/hd128'), output, { type: 'q4_k_m' })
    const { values, quantization } = await logits(vectorsPath('hf/hd128'), {
      quantization: 'q4_k_m',
    })
    expect(quantization).toEqual({ f32: 5, q4_k: 13, q6_k: 3 })
    await expectSame(values, output)
  })

  test('gives those of a bitsandbytes checkpoint', async () => {
    const { values, quantization } = await logits(vectorsPath('hf/swa16'), { quantization: 'nf4' })
    expect(quantization).toEqual({ nf4: 21, bf16: 2, f32: 7 })
    await expectSame(values, vectorsPath('hf/swa16-nf4'))
  })

  // DoRA brings the rows to lengths, which are those of the weights as they were quantised.
  test('gives DoRA the lengths of the quantised rows', async () => {
    const [base, dora] = [vectorsPath('models/full-bf16.gguf'), vectorsPath('adapters/full-dora')]
    const options = { quantization: 'q4_0' } as const
    await quantizeModel(base, output, { type: 'q4_0' })
    const { values } = await logits(base, options, dora)
    await expectSame(values, output, dora)
    expect(sameBits(values, (await logits(base, options)).values)).toBe(false)
  })

  test('gives DoRA the lengths of rows in FP4 with double quantisation', async () => {
    const [base, dora] = [vectorsPath('hf/swa16'), join(folder, 'dora')]
    makeDora(vectorsPath('adapters/swa16-qv'), dora)
    const { values } = await logits(base, { quantization: 'fp4', doubleQuant: true }, dora)
    await expectSame(values, vectorsPath('hf/swa16-fp4-double'), dora)
    const other = await logits(base, { quantization: 'fp4' }, dora)
    expect(sameBits(values, other.values)).toBe(false)
  })
})
