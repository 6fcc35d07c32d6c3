// SPDX-License-Identifier: Apache-2.0
// Tokens per second of n sequences in sum, for each n of a list. See run.mjs.
//   process.mjs MODEL THREADS N,N,...        prints one JSON object
import { loadModel } from '../../dist/esm/index.js'
import { rateTogether } from '../statistics.mjs'

const STEPS = 5

const [path, threads, list] = process.argv.slice(2)
const counts = list.split(',').map(Number)
const model = await loadModel(path, {
  threads: Number(threads),
  contextLength: 64,
  maxSequences: Math.max(...counts),
})
const options = {
  temperature: 0,
  repetitionPenalty: 1,
  maxNewTokens: STEPS,
  logitBias: { [model.tokenizer.eosId]: -Infinity },
}

async function arrivals(token) {
  const times = []
  for await (const chunk of model.generate([1, token], options)) {
    for (const _ of chunk.tokens) times.push(performance.now())
  }
  return times
}

const measured = []
await arrivals(299)
for (const n of counts) {
  const lists = await Promise.all(Array.from({ length: n }, (_, i) => arrivals(300 + 100 * n + i)))
  measured.push({ n, tokensPerSecond: rateTogether(lists) })
}
const { isa, name } = model.info
await model.dispose()
console.log(JSON.stringify({ isa, name, measured }))
