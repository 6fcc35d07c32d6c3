// SPDX-License-Identifier: Apache-2.0
// A thousand loads leave nothing behind, and the event loop never waits for the engine.
import { closeSync, openSync, readdirSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

import { loadModel } from '../../lib/index.js'
import { residentBytes } from './resident.js'

const path = fileURLToPath(new URL('../../models/mini-q4_k_m.gguf', import.meta.url))

test('a thousand loads and disposals grow nothing', { timeout: 240_000 }, async () => {
  const cycle = async (n: number) => {
    for (let i = 0; i < n; i++) await (await loadModel(path, { threads: 1 })).dispose()
  }
  await cycle(200)
  const memory = await residentBytes()
  const threads = readdirSync('/proc/self/task').length
  const files = openSync(path, 'r')
  closeSync(files)
  await cycle(800)
  expect(readdirSync('/proc/self/task').length).toBeLessThanOrEqual(threads)
  const now = openSync(path, 'r')
  closeSync(now)
  expect(now).toBe(files)
  expect((await residentBytes()) - memory).toBeLessThan(24 * 2 ** 20)
})

test('eight sequences do not delay the event loop', async () => {
  const model = await loadModel(path)
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const options = { maxNewTokens: 200, temperature: 0.8 }
  await model.generate('Warm', options)
  delay.enable()
  await Promise.all(Array.from({ length: 8 }, (_, i) => model.generate(`Number ${i}`, options)))
  delay.disable()
  await model.dispose()
  // The histogram includes the timer's own resolution of 1 ms; other processes share this machine.
  expect(delay.percentile(50) / 1e6).toBeLessThan(5)
  expect(delay.percentile(99) / 1e6).toBeLessThan(25)
})
