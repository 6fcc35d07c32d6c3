// SPDX-License-Identifier: Apache-2.0
// One generation may run as long as its user likes: pages that left the window come back, and nothing is kept
// but the text and the tokens. MAESTRALE_LONG_TOKENS=1000000 makes a million of them.
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

import { loadModel } from '../../lib/index.js'
import { residentBytes } from '../resident.js'

const path = fileURLToPath(new URL('../vectors/models/hd128-q4_0.gguf', import.meta.url)) // window 64
const tokens = Number(process.env.MAESTRALE_LONG_TOKENS ?? 16_000)
// A chunk's string and its token in JS; the KV cache of one token takes 2048 bytes here.
const BYTES_PER_TOKEN = 96

interface Mark {
  bytes: number
  ms: number
}

test('a generation of many windows keeps memory and speed flat', {
  timeout: 20_000 + tokens * 2,
}, async () => {
  await using model = await loadModel(path, { threads: 1, contextLength: tokens + 100 })
  const { eosId } = model.tokenizer
  const run = model.generate('Once', {
    maxNewTokens: tokens,
    seed: 1,
    logitBias: { [eosId]: -Infinity },
  })
  const quarter = tokens / 4
  const marks: Mark[] = []
  let received = 0
  for await (const chunk of run) {
    received += chunk.tokens.length
    if (received >= quarter * (marks.length + 1))
      marks.push({ bytes: await residentBytes(), ms: performance.now() })
    if (marks.length < 4) expect(model.stats().kvPagesUsed).toBeLessThanOrEqual(3)
  }
  expect((await run).finishReason).toBe('length')
  expect(received).toBe(tokens)
  const [first, second, , last] = marks as [Mark, Mark, Mark, Mark]
  expect(last.bytes - first.bytes).toBeLessThan(BYTES_PER_TOKEN * 3 * quarter + 8 * 2 ** 20)
  // A quarter takes as long as the one before, but for the noise of a shared machine.
  expect((last.ms - second.ms) / 2).toBeLessThan(2 * (second.ms - first.ms))
  console.info(
    `${tokens} tokens: ${Math.round(last.bytes / 2 ** 20)} MiB resident, ${Math.round((last.bytes - first.bytes) / (3 * quarter))} bytes more a token, ` +
      `${Math.round((1000 * quarter) / (second.ms - first.ms))} tokens/s at first, ${Math.round((2000 * quarter) / (last.ms - second.ms))} at last`,
  )
})
