// SPDX-License-Identifier: Apache-2.0
// Measurements of maestrale in a process of its own, through the public API. See side.mjs.
//   ours.mjs WORK MODEL THREADS
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

import { loadModel } from '../../dist/esm/index.js'
import { rate, rateTogether, watchEventLoop } from '../statistics.mjs'
import { answer } from './answer.mjs'
import { CONTEXT, DECODE_STEPS, ids, prefixes } from './work.mjs'

const [work, path, threads] = process.argv.slice(2)

let started = performance.now()
const model = await loadModel(path, { threads: Number(threads), contextLength: CONTEXT[work] })
const loadMs = performance.now() - started
const endless = {
  temperature: 0,
  repetitionPenalty: 1,
  logitBias: { [model.tokenizer.eosId]: -Infinity },
}

/** Times at which each token of a completion reached JavaScript. */
async function arrivals(tokens, maxNewTokens) {
  const times = []
  for await (const chunk of model.generate(tokens, { ...endless, maxNewTokens })) {
    for (const _ of chunk.tokens) times.push(performance.now())
  }
  return times
}

async function firstTokenMs(n, salt) {
  started = performance.now()
  const [first] = await arrivals(ids(n, salt), 1)
  return first - started
}

const prefill = async (n, salt) => (n / (await firstTokenMs(n, salt))) * 1000
const decode = async (n, salt) => rate(await arrivals(ids(n, salt), DECODE_STEPS + 1))

async function together(n, turn) {
  const all = Promise.all(
    prefixes(n).map((length, i) => arrivals(ids(length, 100 * turn + i), 2 * DECODE_STEPS)),
  )
  await sleep(500)
  const end = watchEventLoop()
  const times = await all
  return { figure: rateTogether(times), delay: end() }
}

/** From the abort of a prompt of 1000 tokens until the engine is free. */
async function abandon(turn) {
  const controller = new AbortController()
  const options = { ...endless, maxNewTokens: 1, signal: controller.signal }
  const run = model.generate(ids(1000, 70 + turn), options)
  await sleep(1500)
  started = performance.now()
  controller.abort()
  await run
  while (model.stats().running > 0) await sleep(1)
  return performance.now() - started
}

await firstTokenMs(32, 1)
await answer(
  { isa: model.info.isa, loadMs },
  {
    prefill_512: async (turn) => ({ figure: await prefill(512, 200 + turn) }),
    decode_1: async (turn) => ({ figure: await decode(8, 300 + turn) }),
    ttft_16: async (turn) => ({ figure: await firstTokenMs(16, 400 + turn) }),
    decode_8: (turn) => together(8, 5 + turn),
    decode_16: (turn) => together(16, 20 + turn),
    prefill_4096: async () => ({ figure: await prefill(4096, 2) }),
    // The same prompt again: its pages are still cached, so only the decoding is new.
    decode_1_at_4096: async () => ({ figure: await decode(4096, 2) }),
    abandon_1000: async (turn) => ({ figure: await abandon(turn) }),
  },
  async () => {
    await model.dispose()
    return { peakBytes: process.resourceUsage().maxRSS * 1024 }
  },
)
