// SPDX-License-Identifier: Apache-2.0
// The measurements of ours.mjs with node-llama-cpp's prebuilt CPU binary, through its low-level API.
//   theirs.mjs WORK MODEL THREADS        prints one JSON object
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { getLlama } from 'node-llama-cpp'

import { DECODE_STEPS, ids, median, PREFIXES } from './work.mjs'

const [work, path, threads] = process.argv.slice(2)
const greedy = { temperature: 0 }
const llama = await getLlama({
  gpu: false,
  build: 'never',
  maxThreads: Number(threads),
  logLevel: 'error',
})
let started = performance.now()
const model = await llama.loadModel({ modelPath: path })
const sequences = work === 'concurrent' ? 16 : 2
const context = await model.createContext({
  contextSize: work === 'prefill_long' ? 2048 + 64 : work === 'abandon' ? 1064 : 1024,
  sequences,
  batchSize: 512,
  threads: { ideal: Number(threads), min: Number(threads) },
})
const loadMs = performance.now() - started

async function prefill(n, salt) {
  const sequence = context.getSequence()
  started = performance.now()
  await sequence.evaluateWithoutGeneratingNewTokens(ids(n, salt))
  const rate = (n / (performance.now() - started)) * 1000
  return { sequence, rate }
}

async function arrivals(sequence, tokens, count) {
  const times = []
  for await (const _ of sequence.evaluate(tokens, { ...greedy, yieldEogToken: true })) {
    times.push(performance.now())
    if (times.length === count) break
  }
  return times
}

const rateOf = (times) => ((times.length - 1) / (times.at(-1) - times[0])) * 1000

async function together(n) {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  const running = PREFIXES.slice(0, n).map((length, i) => ({
    sequence: context.getSequence(),
    tokens: ids(length, 100 + i),
  }))
  const all = Promise.all(
    running.map(({ sequence, tokens }) => arrivals(sequence, tokens, DECODE_STEPS)),
  )
  await sleep(500)
  delay.enable()
  const times = await all
  delay.disable()
  for (const { sequence } of running) sequence.dispose()
  const from = Math.max(...times.map((list) => list[0]))
  const to = Math.min(...times.map((list) => list.at(-1)))
  const inside = times.flat().filter((time) => time > from && time <= to).length
  const late = (nanoseconds) => Math.max(0, nanoseconds / 1e6 - 1)
  return {
    tokensPerSecond: (inside / (to - from)) * 1000,
    delayP99: late(delay.percentile(99)),
    delayMax: late(delay.max),
  }
}

// There is no way to end an evaluation; the sequence is disposed of, and the engine is free again once a
// request of one token on another sequence has been answered.
async function abandon() {
  const sequence = context.getSequence()
  const other = context.getSequence()
  sequence.evaluateWithoutGeneratingNewTokens(ids(1000, 7)).catch(() => {})
  await sleep(1500)
  started = performance.now()
  sequence.dispose()
  await other.evaluateWithoutGeneratingNewTokens(ids(1, 8))
  return performance.now() - started
}

const result = { loadMs }
if (work === 'short') {
  ;(await prefill(32, 1)).sequence.dispose()
  const { sequence, rate } = await prefill(512, 2)
  sequence.dispose()
  result.prefill = rate
  const short = context.getSequence()
  result.decode = rateOf(await arrivals(short, ids(8, 3), DECODE_STEPS + 1))
  short.dispose()
  result.ttft16 = await median(3, async (i) => {
    const one = context.getSequence()
    const from = performance.now()
    const [first] = await arrivals(one, ids(16, 20 + i), 1)
    one.dispose()
    return first - from
  })
} else if (work === 'concurrent') {
  ;(await prefill(32, 1)).sequence.dispose()
  for (const n of [8, 16]) result[n] = await together(n)
} else if (work === 'prefill_long') {
  const { sequence, rate } = await prefill(2048, 2)
  result.prefill = rate
  result.decode = rateOf(await arrivals(sequence, ids(1, 9), DECODE_STEPS + 1))
} else if (work === 'abandon') {
  result.ms = await abandon()
}
result.peakBytes = process.resourceUsage().maxRSS * 1024
console.log(JSON.stringify(result))
process.exit(0)
