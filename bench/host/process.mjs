// SPDX-License-Identifier: Apache-2.0
// Measurements of everything around the model's arithmetic, in a process of its own. See run.mjs.
//   process.mjs overhead|speed MODEL THREADS        prints one JSON object
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'

import { loadModel } from '../../dist/esm/index.js'
import { ids, prefixes } from '../peers/work.mjs'
import { median, rate, watchEventLoop } from '../statistics.mjs'

const STEPS = 24
const TEXT = 'And it came to pass, when the ship had sailed, that the wind fell. '.repeat(40)

const [work, path, threads] = process.argv.slice(2)
const model = await loadModel(path, { threads: Number(threads), contextLength: 512 })
// The usual sampling, all of it: filters over the whole vocabulary and penalties.
const options = { seed: 1, logitBias: { [model.tokenizer.eosId]: -Infinity } }

/** Times at which the tokens of one run reached JavaScript, and what `atFirst` returned at the first. */
async function stream(tokens, maxNewTokens, atFirst) {
  const times = []
  for await (const chunk of model.generate(tokens, { ...options, maxNewTokens })) {
    if (times.length === 0) atFirst?.()
    for (const _ of chunk.tokens) times.push(performance.now())
  }
  return times
}

/**
 * Of the time of a step with n sequences, in percent: what passes outside of the forward pass (scheduling,
 * sampling, text, events), and what JavaScript's thread is busy. The latter runs beside the next step.
 */
async function hostShare(n) {
  let begin
  const mark = () => ({
    time: performance.now(),
    computeMs: model.stats().computeMs,
    steps: model.stats().steps,
    loop: performance.eventLoopUtilization(),
  })
  const lists = prefixes(n).map((length, i) =>
    // The last sequence to begin sets the mark: from there on all of them stream.
    stream(ids(length, 40 + i), STEPS + n, () => {
      begin = mark()
    }),
  )
  await Promise.race(lists)
  const end = mark()
  await Promise.all(lists)
  const elapsed = end.time - begin.time
  const loop = performance.eventLoopUtilization(end.loop, begin.loop)
  return {
    stepMs: elapsed / (end.steps - begin.steps),
    outsidePercent: (100 * (elapsed - (end.computeMs - begin.computeMs))) / elapsed,
    javascriptPercent: (100 * loop.active) / elapsed,
  }
}

/** Microseconds a token. */
function tokenizing() {
  const tokens = model.tokenizer.encode(TEXT)
  const time = (work) => {
    const samples = Array.from({ length: 20 }, () => {
      const started = performance.now()
      work()
      return ((performance.now() - started) * 1000) / tokens.length
    })
    return median(samples)
  }
  return {
    encodeUs: time(() => model.tokenizer.encode(TEXT)),
    decodeUs: time(() => model.tokenizer.decode(tokens)),
  }
}

/** Percent of one core that the process uses, from 100 ms after its last step on. */
async function idlePercent() {
  await sleep(100)
  const [before, started] = [process.cpuUsage(), performance.now()]
  await sleep(2000)
  const { user, system } = process.cpuUsage(before)
  return (100 * (user + system)) / 1000 / (performance.now() - started)
}

const result = { isa: model.info.isa, name: model.info.name }
await stream(ids(32, 1), 2)
if (work === 'overhead') {
  result.idlePercent = await idlePercent()
  result.one = await hostShare(1)
  const end = watchEventLoop()
  result.eight = await hostShare(8)
  result.delay = end()
  Object.assign(result, tokenizing())
} else if (work === 'speed') {
  const started = performance.now()
  const [first] = await stream(ids(128, 2), 1)
  result.prefill = (128 / (first - started)) * 1000
  result.decode = rate(await stream(ids(8, 3), STEPS))
}
await model.dispose()
console.log(JSON.stringify(result))
