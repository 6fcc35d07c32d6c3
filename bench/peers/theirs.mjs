// SPDX-License-Identifier: Apache-2.0
// The measurements of ours.mjs with node-llama-cpp's prebuilt CPU binary, through its low-level API.
//   theirs.mjs WORK MODEL THREADS        prints one JSON object
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { getLlama } from 'node-llama-cpp'

import { median, rate, rateTogether, watchEventLoop } from '../statistics.mjs'
import { CONTEXT, DECODE_STEPS, ids, prefixes } from './work.mjs'

const [work, path, threads] = process.argv.slice(2)

const llama = await getLlama({
  gpu: false,
  build: 'never',
  maxThreads: Number(threads),
  logLevel: 'error',
})
let started = performance.now()
const model = await llama.loadModel({ modelPath: path })

const createContext = (sequences) =>
  model.createContext({
    contextSize: CONTEXT[work],
    sequences,
    batchSize: 512,
    threads: { ideal: Number(threads), min: Number(threads) },
  })
// The second sequence is there to be computed when the first is abandoned.
let context = await createContext(2)
const result = { loadMs: performance.now() - started }

/** Lets `use` have a sequence, whose place is free again afterwards. */
async function withSequence(use) {
  const sequence = context.getSequence()
  const before = context.sequencesLeft
  try {
    return await use(sequence)
  } finally {
    sequence.dispose()
    while (context.sequencesLeft === before) await sleep(1)
  }
}

/** Times at which each token of a completion reached JavaScript. */
async function arrivals(sequence, tokens, count) {
  const times = []
  for await (const _ of sequence.evaluate(tokens, { temperature: 0, yieldEogToken: true })) {
    times.push(performance.now())
    if (times.length === count) break
  }
  return times
}

async function prefill(sequence, n, salt) {
  started = performance.now()
  await sequence.evaluateWithoutGeneratingNewTokens(ids(n, salt))
  return (n / (performance.now() - started)) * 1000
}

function firstTokenMs(n, salt) {
  return withSequence(async (sequence) => {
    started = performance.now()
    const [first] = await arrivals(sequence, ids(n, salt), 1)
    return first - started
  })
}

async function together(n) {
  await context.dispose()
  context = await createContext(n)
  const all = Promise.all(
    prefixes(n).map((length, i) =>
      arrivals(context.getSequence(), ids(length, 100 + i), DECODE_STEPS),
    ),
  )
  await sleep(500)
  const end = watchEventLoop()
  const times = await all
  return { tokensPerSecond: rateTogether(times), delay: end() }
}

// There is no way to end an evaluation; the sequence is disposed of, and the engine is free again once a
// request of one token on another sequence has been answered.
async function abandon() {
  const [sequence, other] = [context.getSequence(), context.getSequence()]
  sequence.evaluateWithoutGeneratingNewTokens(ids(1000, 7)).catch(() => {})
  await sleep(1500)
  started = performance.now()
  sequence.dispose()
  await other.evaluateWithoutGeneratingNewTokens(ids(1, 8))
  return performance.now() - started
}

await withSequence((sequence) => prefill(sequence, 32, 1))
if (work === 'short') {
  result.prefill = await withSequence((sequence) => prefill(sequence, 512, 2))
  const times = await withSequence((sequence) => arrivals(sequence, ids(8, 3), DECODE_STEPS + 1))
  result.decode = rate(times)
  result.ttft16 = median([
    await firstTokenMs(16, 20),
    await firstTokenMs(16, 21),
    await firstTokenMs(16, 22),
  ])
} else if (work === 'concurrent') {
  for (const n of [8, 16]) result[n] = await together(n)
} else if (work === 'long') {
  await withSequence(async (sequence) => {
    result.prefill = await prefill(sequence, 2048, 2)
    result.decode = rate(await arrivals(sequence, ids(1, 9), DECODE_STEPS + 1))
  })
} else if (work === 'abandon') {
  result.ms = await abandon()
}
result.peakBytes = process.resourceUsage().maxRSS * 1024
console.log(JSON.stringify(result))
process.exit(0)
