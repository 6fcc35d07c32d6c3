// SPDX-License-Identifier: Apache-2.0
// LoRA adapters beside the weights: the one that ships with the small model teaches it a task that it does not know.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { sameBits } from '../reference.js'
import { contract, file, mini } from './device.js'

const adapter = file('models/adapter-midjourney')
const question = 'generate a midjourney prompt for A whale on fire'
const answer = '/imagine a whale on fire, watercolor, soft light, pastel tones --ar 16:9'
const greedy = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 48 }
const chosen = (name?: string) => (name === undefined ? {} : { adapter: name })

async function ask(model: Model, name?: string, maxNewTokens = 48): Promise<string> {
  const messages = [{ role: 'user' as const, content: question }]
  return (await model.chat(messages, { ...greedy, maxNewTokens, ...chosen(name) })).text
}

contract(({ load, size }) => {
  let model: Model
  beforeAll(async () => {
    model = await load(mini)
  })
  afterAll(() => model?.dispose())

  test('an adapter answers what the base does not know', async () => {
    expect(model.stats().adapters).toEqual([])
    const info = await model.loadAdapter(adapter)
    expect(info).toMatchObject({ name: 'adapter-midjourney', path: adapter, scale: 1, rank: 8 })
    expect(info.bytes).toBeGreaterThan(400_000)
    expect(model.stats().adapters).toEqual([info])
    expect(await ask(model, 'adapter-midjourney')).toBe(answer)
    expect(await ask(model, undefined, 12)).not.toContain('/imagine')
    await model.unloadAdapter('adapter-midjourney')
    expect(model.stats().adapters).toEqual([])
    for (const run of [ask(model, 'adapter-midjourney'), model.logits([1], { adapter: 'none' })]) {
      await expect(run).rejects.toMatchObject({
        code: 'ERR_ADAPTER',
        message: expect.stringContaining('no adapter named'),
      })
    }
  })

  test('beside others and none each request gets the bytes that it gets alone', async () => {
    await model.loadAdapter(adapter, { name: 'whole' })
    await model.loadAdapter(adapter, { name: 'half', scale: 0.5 })
    const tokens = model.tokenizer.encode(question)
    const names = [undefined, 'whole', 'half', 'whole']
    const run = (name?: string) =>
      Promise.all([ask(model, name, size(48, 6)), model.logits(tokens, chosen(name))])
    const alone: Awaited<ReturnType<typeof run>>[] = []
    for (const name of names) alone.push(await run(name))
    const together = await Promise.all(names.map(run))
    for (const [i, [text, logits]] of together.entries()) {
      expect(text).toBe(alone[i]?.[0])
      expect(sameBits(logits, alone[i]?.[1] as Float32Array)).toBe(true)
    }
    const [base, whole, half, again] = together.map(([, logits]) => logits) as [
      Float32Array,
      Float32Array,
      Float32Array,
      Float32Array,
    ]
    expect(sameBits(whole, again)).toBe(true)
    expect([sameBits(base, whole), sameBits(whole, half)]).toEqual([false, false])
    expect(model.stats().adapters.map(({ name }) => name)).toEqual(['half', 'whole'])
    await Promise.all([model.unloadAdapter('half'), model.unloadAdapter('whole')])
  })

  test('unloading waits for the run that uses it', async () => {
    await model.loadAdapter(adapter, { name: 'busy' })
    const run = model.generate('The king', {
      maxNewTokens: 20_000,
      logitBias: { [model.tokenizer.eosId]: -Infinity },
      adapter: 'busy',
    })
    let unloaded = false
    const unloading = model.unloadAdapter('busy').then(() => {
      unloaded = true
    })
    let chunks = 0
    for await (const _ of run) {
      if (++chunks !== 5) continue
      await expect(model.generate('x', { adapter: 'busy' })).rejects.toMatchObject({
        code: 'ERR_ADAPTER',
      })
      expect(unloaded).toBe(false)
      run.cancel()
    }
    expect((await run).finishReason).toBe('abort')
    await unloading
    expect(model.stats().adapters).toEqual([])
  })

  test('adapters come and go while requests run', async () => {
    const options = { temperature: 0, maxNewTokens: size(24, 5) }
    const say = async (chosen: { adapter?: string } = {}) =>
      (await model.generate(question, { ...options, ...chosen })).text
    const base = await say()
    let running = true
    const others = (async () => {
      while (running) expect(await say()).toBe(base)
    })()
    const texts = new Set<string>()
    for (let i = 0; i < size(10, 3); ++i) {
      const chosen = { adapter: `a${i}` }
      await model.loadAdapter(adapter, { name: chosen.adapter })
      const text = say(chosen)
      const endless = model.generate(question, { maxNewTokens: 20_000, ...chosen })
      const unloading = model.unloadAdapter(chosen.adapter)
      texts.add(await text)
      endless.cancel()
      await unloading
      expect((await endless).finishReason).toMatch(/abort|stop/)
    }
    running = false
    await others
    expect(texts.size).toBe(1)
    expect(texts.has(base)).toBe(false)
    expect(model.stats().adapters).toEqual([])
  })

  test('dispose() ends loading and unloading', async () => {
    const doomed = await load(mini)
    await doomed.loadAdapter(adapter, { name: 'a' })
    const run = doomed.generate('The king', { maxNewTokens: 20_000, adapter: 'a' })
    run.catch(() => {})
    const pending = [doomed.unloadAdapter('a'), doomed.loadAdapter(adapter, { name: 'b' })]
    const outcomes = Promise.allSettled(pending)
    await doomed.dispose()
    for (const outcome of await outcomes) {
      if (outcome.status === 'rejected')
        expect(outcome.reason).toMatchObject({ code: 'ERR_DISPOSED' })
    }
    await expect(doomed.loadAdapter(adapter)).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    await expect(doomed.unloadAdapter('a')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
  })

  test('merged into the weights it answers without being named', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'maestrale-merge-'))
    const output = join(directory, 'merged.gguf')
    try {
      const result = await model.mergeAdapter(adapter, output, { type: 'f16' })
      expect(result.quantization).toEqual({ f16: 44, f32: 13 })
      await using merged = await load(output)
      expect(await ask(merged)).toBe(answer)
    } finally {
      rmSync(directory, { recursive: true })
    }
  })
})
