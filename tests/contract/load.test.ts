// SPDX-License-Identifier: Apache-2.0
// A thousand loads leave nothing behind, and the event loop never waits for the engine.
import { closeSync, openSync, readdirSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { expect, test } from 'vitest'

import { residentBytes } from '../resident.js'
import { contract, mini } from './device.js'

contract(({ load, size }) => {
  test('many loads and disposals grow nothing', { timeout: 240_000 }, async () => {
    const cycle = async (n: number) => {
      for (let i = 0; i < n; i++) await (await load(mini, { threads: 1 })).dispose()
    }
    const nextFile = () => {
      const descriptor = openSync(mini, 'r')
      closeSync(descriptor)
      return descriptor
    }
    await cycle(size(200, 10))
    const memory = await residentBytes()
    const threads = readdirSync('/proc/self/task').length
    const file = nextFile()
    await cycle(size(800, 40))
    expect(readdirSync('/proc/self/task').length).toBeLessThanOrEqual(threads)
    expect(nextFile()).toBe(file)
    // Forty models that stayed would take 160 MiB.
    expect((await residentBytes()) - memory).toBeLessThan(24 * 2 ** 20)
  })

  test('eight sequences do not delay the event loop', async () => {
    await using model = await load(mini)
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const options = { maxNewTokens: size(200, 12), temperature: 0.8 }
    await model.generate('Warm', options)
    delay.enable()
    await Promise.all(Array.from({ length: 8 }, (_, i) => model.generate(`Number ${i}`, options)))
    delay.disable()
    // The histogram includes the timer's own resolution of 1 ms; other processes share this machine.
    expect(delay.percentile(50) / 1e6).toBeLessThan(5)
    expect(delay.percentile(99) / 1e6).toBeLessThan(25)
  })
})
