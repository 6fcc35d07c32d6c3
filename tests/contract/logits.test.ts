// SPDX-License-Identifier: Apache-2.0
// Logits are those of the published model code: every reference model at every length, every storage type, window,
// type of the cache and adapter (tests/vectors/README.md says where the vectors and the bounds are from).
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { nmse, readTensors, type Tensors, vectorsPath } from '../reference.js'
import { contract, file } from './device.js'

const FLOAT = 1e-5 // NMSE with weights in 16 bits
const QUANTISED = 2e-3
/** Between two logits, of 1.4 on average, that may change places where those bounds hold. */
const TIE = 2 * Math.sqrt(FLOAT)

const ggufPath = (name: string) => vectorsPath(`models/${name}.gguf`)

/** Holds `model` to the logits whose keys begin with `prefix`; returns the lengths of the prompts. */
async function check(model: Model, tensors: Tensors, bound: number, prefix = '', adapter?: string) {
  const lengths: number[] = []
  for (const [key, want] of tensors) {
    const length = key.startsWith(prefix) && /len(\d+)\.(merged_)?logits$/.exec(key)?.[1]
    if (!length) continue
    const tokens = [...(tensors.get(`len${length}.tokens`) as Int32Array)]
    const got = await model.logits(tokens, adapter === undefined ? {} : { adapter })
    expect(nmse(got, want as Float32Array), key).toBeLessThan(bound)
    // The bound would not hide that there is no adapter.
    if (adapter !== undefined)
      expect(nmse(await model.logits(tokens), want as Float32Array), key).toBeGreaterThan(1e-3)
    lengths.push(Number(length))
  }
  return lengths.sort((a, b) => a - b)
}

const MODELS = [
  ['swa16', 16],
  ['hd128', 64],
  ['full', 32],
] as const

contract(({ name: device, load, size }) => {
  test.each(MODELS)('%s below, at and far beyond the window', async (name, window) => {
    await using model = await load(ggufPath(`${name}-bf16`))
    expect(model.info.device).toBe(device === 'cuda' ? 'cuda:0' : 'cpu')
    const lengths = await check(model, readTensors(`${name}.vectors.safetensors`), FLOAT)
    const around = [-1, 0, 1].map((offset) => window + offset)
    expect(lengths).toEqual([1, 2, 7, ...around, 2 * window + 3, 4 * window + 5])
  })

  test.each(MODELS)('%s continues as the reference does, beyond the window', async (name) => {
    await using model = await load(ggufPath(`${name}-bf16`))
    const want = [
      ...(readTensors(`${name}.vectors.safetensors`).get('greedy.tokens') as Int32Array),
    ]
    let ties = 0
    for (let at = 7; at < want.length; ++at) {
      const run = await model.generate(want.slice(0, at), {
        maxNewTokens: want.length - at,
        temperature: 0,
        repetitionPenalty: 1,
        logprobs: 2,
      })
      const same = [...run.tokens].findIndex((token, i) => token !== want[at + i])
      at += same < 0 ? run.tokens.length : same
      if (same < 0) continue
      // The reference's cache is in binary32, ours in binary16: two logits may be closer than that.
      const [first, second] = run.logprobs?.[same]?.top ?? []
      expect(second?.token).toBe(want[at])
      expect((first?.logprob ?? 0) - (second?.logprob ?? 0)).toBeLessThan(TIE)
      ++ties
    }
    expect(ties).toBeLessThanOrEqual(name === 'hd128' ? 1 : 0)
  })

  const types = readdirSync(vectorsPath('models')).flatMap(
    (name) => /^hd128-(.*)\.gguf$/.exec(name)?.[1] ?? [],
  )
  test('every storage type has its file', () => expect(types).toHaveLength(15))
  test.each(types)('weights in %s', async (type) => {
    await using model = await load(ggufPath(`hd128-${type}`))
    const bound = /16$/.test(type) ? FLOAT : QUANTISED
    const prefix = `${type.toUpperCase()}.`
    const tensors = readTensors('hd128-gguf.vectors.safetensors')
    expect(await check(model, tensors, bound, prefix)).toEqual([7, 65])
  })

  test.each([
    ['swa16', FLOAT],
    ['hd128', FLOAT],
    ['swa16-nf4', QUANTISED],
    ['swa16-fp4-double', QUANTISED],
    ['hd128-nf4-double', QUANTISED],
  ])('the Hugging Face directory %s', async (name, bound) => {
    await using model = await load(vectorsPath(`hf/${name}`))
    const lengths = await check(model, readTensors(`${name}.vectors.safetensors`), bound)
    expect(lengths.length).toBeGreaterThanOrEqual(2)
  })

  test.each([
    ['swa16', 'swa16-qv'],
    ['swa16', 'swa16-patterns'],
    ['hd128', 'hd128-all-rslora'],
    ['full', 'full-dora'],
  ])('%s with the adapter %s', async (base, name) => {
    await using model = await load(ggufPath(`${base}-bf16`))
    await model.loadAdapter(vectorsPath(`adapters/${name}`), { name })
    const tensors = readTensors(`${name}.adapter-vectors.safetensors`)
    expect(await check(model, tensors, FLOAT, '', name)).toHaveLength(3)
  })

  test('a window of another width, and none', async () => {
    const tensors = readTensors('swa16.vectors.safetensors')
    const tokens = [...(tensors.get('len35.tokens') as Int32Array)]
    const want = tensors.get('len35.logits') as Float32Array
    for (const slidingWindow of [16, 8, null]) {
      await using model = await load(ggufPath('swa16-bf16'), { slidingWindow })
      const got = await model.logits(tokens)
      const seen = (slidingWindow ?? 16) * model.info.vocabSize // rows that all windows see alike
      expect(nmse(got.subarray(0, seen), want.subarray(0, seen))).toBeLessThan(FLOAT)
      const rest = nmse(got.subarray(seen), want.subarray(seen))
      if (slidingWindow === 16) expect(rest).toBeLessThan(FLOAT)
      else expect(rest).toBeGreaterThan(1e-3)
    }
  })

  test.each([
    ['f16', 0, FLOAT],
    // The CPU keeps integers of 16 bits for either.
    ['bf16', ...(device === 'cpu' ? ([0, FLOAT] as const) : ([1e-6, 2e-5] as const))],
    ['q8_0', 1e-5, 4e-4],
  ] as const)('a cache in %s loses what its bits lose', async (kvCacheType, least, most) => {
    const tensors = readTensors('hd128.vectors.safetensors')
    await using model = await load(ggufPath('hd128-bf16'), { kvCacheType })
    const got = await model.logits([...(tensors.get('len131.tokens') as Int32Array)])
    const loss = nmse(got, tensors.get('len131.logits') as Float32Array)
    expect(loss).toBeGreaterThan(least)
    expect(loss).toBeLessThan(most)
  })

  test('a trained model, with its adapter and without, and its perplexity over windows', async () => {
    const tensors = readTensors('mini/mini.vectors.safetensors')
    const ids = (name: string) => [...(tensors.get(`${name}.tokens`) as Int32Array)]
    await using model = await load(vectorsPath('mini/mini-q8_0.gguf'))
    await model.loadAdapter(file('models/adapter-midjourney'), { name: 'adapter' })
    for (const prompt of ['p0', 'p1', 'p2']) {
      for (const [key, options] of [
        ['logits', {}],
        ['adapter_logits', { adapter: 'adapter' }],
      ] as const) {
        const last = (await model.logits(ids(prompt), options)).slice(-model.info.vocabSize)
        const want = tensors.get(`${prompt}.${key}`) as Float32Array
        expect(nmse(last, want), `${prompt} ${key}`).toBeLessThan(QUANTISED)
      }
    }
    const n = size(2048, 400)
    const { logprobs } = await model.score(ids('long').slice(0, n))
    const want = (tensors.get('long.logprobs') as Float32Array).subarray(0, n - 1)
    expect(nmse(logprobs, want)).toBeLessThan(1e-4)
    const mean = (values: Float32Array) => values.reduce((sum, x) => sum + x, 0) / values.length
    expect(Math.exp(mean(want) - mean(logprobs))).toBeCloseTo(1, 3)
  })
})
