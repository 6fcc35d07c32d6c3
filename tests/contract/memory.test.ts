// SPDX-License-Identifier: Apache-2.0
// What does not fit into memory is an error with the numbers, for the request alone that asked for it. The simulated
// GPU is a small one.
import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Model } from '../../lib/index.js'
import { contract, mini } from './device.js'

contract(({ name, load, size }) => {
  const contextLength = size(1e9, 1e8)
  let model: Model
  beforeAll(async () => {
    // Without a window each token takes its place in the cache; no machine has place for so many.
    const options = { contextLength, slidingWindow: null, maxSequences: 1, maxBatchTokens: 64 }
    model = await load(mini, { ...options, ...(name === 'cuda' ? { gpuLayers: 1024 } : {}) })
  })
  afterAll(() => model?.dispose())

  test('a text longer than the cache is refused before it begins', async () => {
    const good = model.generate('The king', { temperature: 0, maxNewTokens: size(20, 6) })
    const endless = model.generate('The king', {
      temperature: 0,
      maxNewTokens: 0.9 * contextLength,
    })
    await expect(endless).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      message: expect.stringMatching(
        /^a sequence of 9\d+ tokens needs \d+ KV pages, memory allows \d+; lower maxNewTokens/,
      ),
    })
    const { text } = await good
    const again = await model.generate('The king', { temperature: 0, maxNewTokens: size(20, 6) })
    expect(again.text).toBe(text)
    expect(model.stats()).toMatchObject({ running: 0, queued: 0, kvPagesUsed: 0 })
  })

  test('logits larger than what is left are refused', async () => {
    const tokens = new Uint32Array(20_000_000).fill(5) // 16 KiB of logits each
    await expect(model.logits(tokens)).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
    expect(await model.logits(tokens.subarray(0, 3))).toHaveLength(3 * model.info.vocabSize)
  })
}, 'memory=256m')
