// SPDX-License-Identifier: Apache-2.0
// The measurements of ours.mjs with node-llama-cpp's prebuilt CPU binary, through its low-level API.
// See side.mjs.        theirs.mjs WORK MODEL THREADS
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { getLlama } from 'node-llama-cpp'

import { rate, rateTogether, watchEventLoop } from '../statistics.mjs'
import { answer } from './answer.mjs'
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
const loadMs = performance.now() - started

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

async function together(n, turn) {
  await context.dispose()
  context = await createContext(n)
  const all = Promise.all(
    prefixes(n).map((length, i) =>
      arrivals(context.getSequence(), ids(length, 100 * turn + i), DECODE_STEPS),
    ),
  )
  await sleep(500)
  const end = watchEventLoop()
  const times = await all
  return { figure: rateTogether(times), delay: end() }
}

// There is no way to end an evaluation; the sequence is disposed of, and the engine is free again once a
// request of one token on another sequence has been answered.
async function abandon(turn) {
  const [sequence, other] = [context.getSequence(), context.getSequence()]
  sequence.evaluateWithoutGeneratingNewTokens(ids(1000, 70 + turn)).catch(() => {})
  await sleep(1500)
  started = performance.now()
  sequence.dispose()
  await other.evaluateWithoutGeneratingNewTokens(ids(1, 8))
  const elapsed = performance.now() - started
  other.dispose()
  while (context.sequencesLeft < 2) await sleep(1)
  return elapsed
}

let long // a sequence that stands behind 2048 tokens, once its prompt has been measured
async function prefillLong() {
  long = context.getSequence()
  return prefill(long, 2048, 2)
}

await withSequence((sequence) => prefill(sequence, 32, 1))
await answer(
  { loadMs },
  {
    prefill_512: async (turn) => ({
      figure: await withSequence((sequence) => prefill(sequence, 512, 200 + turn)),
    }),
    decode_1: async (turn) => {
      const measured = (sequence) => arrivals(sequence, ids(8, 300 + turn), DECODE_STEPS + 1)
      return { figure: rate(await withSequence(measured)) }
    },
    ttft_16: async (turn) => ({ figure: await firstTokenMs(16, 400 + turn) }),
    decode_8: (turn) => together(8, 5 + turn),
    decode_16: (turn) => together(16, 20 + turn),
    prefill_4096: async () => ({ figure: await prefillLong() }),
    decode_1_at_4096: async (turn) => ({
      figure: rate(await arrivals(long, ids(1, 900 + turn), DECODE_STEPS + 1)),
    }),
    abandon_1000: async (turn) => ({ figure: await abandon(turn) }),
  },
  async () => ({ peakBytes: process.resourceUsage().maxRSS * 1024 }),
)
process.exit(0)
