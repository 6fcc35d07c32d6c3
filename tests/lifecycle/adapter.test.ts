// SPDX-License-Identifier: Apache-2.0
// Adapters that come and go under load leave nothing behind: no memory, no thread, no file.
// MAESTRALE_CHURN_SECONDS=60 makes a minute of it.
import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

import { loadModel } from '../../lib/index.js'
import { residentBytes } from '../resident.js'

const file = (path: string) => fileURLToPath(new URL(`../../models/${path}`, import.meta.url))
const seconds = Number(process.env.MAESTRALE_CHURN_SECONDS ?? 4)

async function held() {
  return {
    bytes: await residentBytes(),
    threads: readdirSync('/proc/self/task').length,
    files: readdirSync('/proc/self/fd').length,
  }
}

test('adapters that come and go under load leave nothing behind', {
  timeout: (seconds + 100) * 1000,
}, async () => {
  await using model = await loadModel(file('mini-q4_k_m.gguf'), { threads: 2 })
  const options = { temperature: 0, maxNewTokens: 12 }
  const base = (await model.generate('The king said', options)).text
  let cycles = 0
  let adapted: string | undefined
  const cycle = async () => {
    const name = `a${cycles++}`
    const { bytes } = await model.loadAdapter(file('adapter-midjourney'), { name })
    expect(bytes).toBeGreaterThan(400_000)
    const uses = model.generate('The king said', { ...options, adapter: name })
    const unloading = model.unloadAdapter(name)
    const { text, finishReason } = await uses
    expect(finishReason).not.toBe('abort')
    adapted ??= text
    expect(text).toBe(adapted)
    await unloading
  }
  let going = true
  const load = Array.from({ length: 3 }, async () => {
    while (going) expect((await model.generate('The king said', options)).text).toBe(base)
  })
  for (let i = 0; i < 40; i++) await cycle()
  const before = await held()
  const [first, end] = [cycles, Date.now() + seconds * 1000]
  while (Date.now() < end || cycles < first + 80) await cycle()
  const after = await held()
  going = false
  await Promise.all(load)
  console.log(`${cycles - first} adapters, ${(after.bytes - before.bytes) / 2 ** 20} MiB more`)
  expect(adapted).not.toBe(base)
  expect(after.threads).toBeLessThanOrEqual(before.threads)
  expect(after.files).toBeLessThanOrEqual(before.files)
  // 80 adapters that stayed would take 32 MiB and more.
  expect(after.bytes - before.bytes).toBeLessThan(16 * 2 ** 20)
  expect(model.stats().adapters).toEqual([])
})
