// SPDX-License-Identifier: Apache-2.0
// Ending requests at every moment of their life: nothing hangs, nothing stays behind, nobody else notices.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { contract, mini } from './device.js'

const long = { maxNewTokens: 20_000, temperature: 0, logitBias: { 2: Number.NEGATIVE_INFINITY } }

contract(({ load, size }) => {
  // A GPU finishes the step that it has begun, and a simulated one takes its time.
  const maxBatchTokens = size(64, 4)
  let model: Model

  beforeAll(async () => {
    model = await load(mini, { maxSequences: 2, maxBatchTokens })
  })
  afterAll(() => model?.dispose())

  async function idle(): Promise<void> {
    for (let i = 0; i < 500; i++) {
      const { running, queued, kvPagesUsed } = model.stats()
      if (running === 0 && queued === 0 && kvPagesUsed === 0) return
      await sleep(2)
    }
    expect(model.stats()).toMatchObject({ running: 0, queued: 0, kvPagesUsed: 0 })
  }

  test('a signal aborts in the queue', async () => {
    const first = [model.generate('One', long), model.generate('Two', long)]
    const controller = new AbortController()
    const waiting = model.generate('Three', { signal: controller.signal })
    await sleep(20)
    controller.abort()
    const { finishReason, usage } = await waiting
    expect(finishReason).toBe('abort')
    expect(usage.completionTokens).toBe(0)
    for (const run of first) run.cancel()
    for (const run of first) expect((await run).finishReason).toBe('abort')
    await idle()
  })

  test('a signal aborts a long prompt, and soon', async () => {
    const controller = new AbortController()
    const tokens = Uint32Array.from({ length: 30_000 }, (_, i) => 100 + (i % 3000))
    const run = model.generate(tokens, { signal: controller.signal })
    while (model.stats().running === 0) await sleep(1)
    await sleep(20)
    const begin = performance.now()
    controller.abort()
    expect((await run).finishReason).toBe('abort')
    expect(performance.now() - begin).toBeLessThan(250)
    await idle()
  })

  test('a signal aborts in the middle of a text, which is kept', async () => {
    const controller = new AbortController()
    const run = model.generate('Once upon a time', { ...long, signal: controller.signal })
    let chunks = 0
    for await (const _ of run) if (++chunks === 10) controller.abort()
    const { finishReason, tokens } = await run
    expect(finishReason).toBe('abort')
    expect(tokens.length).toBeGreaterThanOrEqual(9)
    await idle()
  })

  test('leaving the loop aborts, and the text so far is kept', async () => {
    const run = model.generate('Once upon a time', long)
    let text = ''
    for await (const chunk of run) {
      text += chunk.text
      if (text.length > 20) break
    }
    const result = await run
    expect(result.finishReason).toBe('abort')
    expect(result.text.startsWith(text)).toBe(true)
    await idle()
  })

  test('a text of a megabyte is aborted while it is read', async () => {
    const run = model.generate('word '.repeat(200_000), {})
    run.cancel()
    expect((await run).finishReason).toBe('abort')
    await idle()
  })

  test('a signal aborts logits', async () => {
    const controller = new AbortController()
    const tokens = Array.from({ length: 20_000 }, (_, i) => 100 + (i % 3000))
    const logits = model.logits(tokens, { signal: controller.signal })
    await sleep(20)
    controller.abort(new Error('enough'))
    await expect(logits).rejects.toThrow('enough')
    await idle()
  })

  test('dispose ends everything, at once and only once', async () => {
    for (const wait of [0, 1, 5, 30]) {
      const own = await load(mini, { maxBatchTokens })
      const runs = Array.from({ length: 20 }, (_, i) => own.generate(`Number ${i}`, long))
      await sleep(wait)
      const begin = performance.now()
      await Promise.all([own.dispose(), own.dispose()])
      expect(performance.now() - begin).toBeLessThan(1000)
      for (const run of runs) await expect(run).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
      await expect(own.generate('late')).rejects.toMatchObject({ code: 'ERR_DISPOSED' })
    }
  })
})
