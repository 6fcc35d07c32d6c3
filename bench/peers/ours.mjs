// SPDX-License-Identifier: Apache-2.0
// One measurement of maestrale in a process of its own, through the public API. See run.mjs.
//   ours.mjs WORK MODEL THREADS        prints one JSON object
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

import { loadModel } from '../../dist/esm/index.js'
import { median, rate, rateTogether, watchEventLoop } from '../statistics.mjs'
import { CONTEXT, DECODE_STEPS, ids, prefixes } from './work.mjs'

const [work, path, threads] = process.argv.slice(2)

let started = performance.now()
const model = await loadModel(path, { threads: Number(threads), contextLength: CONTEXT[work] })
const result = { isa: model.info.isa, loadMs: performance.now() - started }
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

async function together(n) {
  const all = Promise.all(
    prefixes(n).map((length, i) => arrivals(ids(length, 100 + i), 2 * DECODE_STEPS)),
  )
  await sleep(500)
  const end = watchEventLoop()
  const times = await all
  return { tokensPerSecond: rateTogether(times), delay: end() }
}

/** From the abort of a prompt of 1000 tokens until the engine is free. */
async function abandon() {
  const controller = new AbortController()
  const options = { ...endless, maxNewTokens: 1, signal: controller.signal }
  const run = model.generate(ids(1000, 7), options)
  await sleep(1500)
  started = performance.now()
  controller.abort()
  await run
  while (model.stats().running > 0) await sleep(1)
  return performance.now() - started
}

await firstTokenMs(32, 1)
if (work === 'short') {
  result.prefill = await prefill(512, 2)
  result.decode = await decode(8, 3)
  result.ttft16 = median([
    await firstTokenMs(16, 20),
    await firstTokenMs(16, 21),
    await firstTokenMs(16, 22),
  ])
} else if (work === 'concurrent') {
  for (const n of [8, 16]) result[n] = await together(n)
} else if (work === 'long') {
  result.prefill = await prefill(4096, 2)
  // The same prompt again: its pages are still cached, so only the decoding is new.
  result.decode = await decode(4096, 2)
} else if (work === 'abandon') {
  result.ms = await abandon()
}
result.peakBytes = process.resourceUsage().maxRSS * 1024
await model.dispose()
console.log(JSON.stringify(result))
