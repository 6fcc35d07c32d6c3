// SPDX-License-Identifier: Apache-2.0
// One measurement of maestrale in a process of its own, through the public API. See run.mjs.
//   ours.mjs WORK MODEL THREADS        prints one JSON object
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

import { loadModel } from '../../dist/esm/index.js'
import { DECODE_STEPS, ids, median, PREFIXES } from './work.mjs'

const [work, path, threads] = process.argv.slice(2)
const GREEDY = { temperature: 0, repetitionPenalty: 1 }

const contexts = { prefill_long: 4096 + 64, abandon: 1064 }
let started = performance.now()
const model = await loadModel(path, {
  threads: Number(threads),
  contextLength: contexts[work] ?? 1024,
  maxSequences: 16,
})
const loadMs = performance.now() - started
const endless = { ...GREEDY, logitBias: { [model.tokenizer.eosId]: -Infinity } }

/** Times at which each token of a run reached JavaScript. */
async function arrivals(run) {
  const times = []
  for await (const chunk of run) for (const _ of chunk.tokens) times.push(performance.now())
  return times
}

async function prefill(n, salt) {
  started = performance.now()
  const [first] = await arrivals(model.generate(ids(n, salt), { ...endless, maxNewTokens: 1 }))
  return (n / (first - started)) * 1000
}

/** Tokens per second of one sequence behind a prompt of n tokens. */
async function decode(n, salt) {
  const options = { ...endless, maxNewTokens: DECODE_STEPS + 1 }
  const times = await arrivals(model.generate(ids(n, salt), options))
  return ((times.length - 1) / (times.at(-1) - times[0])) * 1000
}

/** Sum over n sequences, from the moment when all of them stream. */
async function together(n) {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const runs = PREFIXES.slice(0, n).map((length, i) =>
    model.generate(ids(length, 100 + i), { ...endless, maxNewTokens: 2 * DECODE_STEPS }),
  )
  const all = Promise.all(runs.map(arrivals))
  await sleep(500)
  delay.enable()
  const times = await all
  delay.disable()
  const from = Math.max(...times.map((list) => list[0]))
  const to = Math.min(...times.map((list) => list.at(-1)))
  const inside = times.flat().filter((time) => time > from && time <= to).length
  // The histogram holds how late a timer of 1 ms fired, that millisecond included.
  const late = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - 1)
  return {
    tokensPerSecond: (inside / (to - from)) * 1000,
    delayP99: late(delay.percentile(99)),
    delayMax: late(delay.max),
  }
}

async function abandon() {
  const controller = new AbortController()
  const run = model.generate(ids(1000, 7), {
    ...endless,
    maxNewTokens: 1,
    signal: controller.signal,
  })
  await sleep(1500)
  started = performance.now()
  controller.abort()
  await run.catch(() => {})
  while (model.stats().running > 0) await sleep(1)
  return performance.now() - started
}

const result = { isa: model.info.isa, loadMs }
if (work === 'short') {
  await prefill(32, 1)
  result.prefill = await prefill(512, 2)
  result.decode = await decode(8, 3)
  result.ttft16 = await median(3, async (i) => 16_000 / (await prefill(16, 20 + i)))
} else if (work === 'concurrent') {
  await prefill(32, 1)
  for (const n of [8, 16]) result[n] = await together(n)
} else if (work === 'prefill_long') {
  await prefill(32, 1)
  result.prefill = await prefill(4096, 2)
  // The same prompt again: its pages are still cached, so only the decoding is new.
  result.decode = await decode(4096, 2)
} else if (work === 'abandon') {
  result.ms = await abandon()
}
result.peakBytes = process.resourceUsage().maxRSS * 1024
await model.dispose()
console.log(JSON.stringify(result))
