// SPDX-License-Identifier: Apache-2.0
// Tokens per second of n sequences in sum, for each n of a list. See run.mjs.
//   process.mjs MODEL THREADS N,N,...        prints one JSON object
import { loadModel } from '../../dist/esm/index.js'
import { rateTogether } from '../statistics.mjs'

// Steps that all n sequences compute together; the engine lets new prompts into a step a few at a time.
const STEPS = 5
const admissionSteps = (n) => Math.ceil(n / 4)

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
  logitBias: { [model.tokenizer.eosId]: -Infinity },
}

async function arrivals(token, maxNewTokens) {
  const times = []
  for await (const chunk of model.generate([1, token], { ...options, maxNewTokens })) {
    for (const _ of chunk.tokens) times.push(performance.now())
  }
  return times
}

const measured = []
await arrivals(299, STEPS)
for (const n of counts) {
  const steps = STEPS + admissionSteps(n)
  const lists = await Promise.all(
    Array.from({ length: n }, (_, i) => arrivals(300 + 100 * n + i, steps)),
  )
  measured.push({ n, tokensPerSecond: rateTogether(lists) })
}
const { isa, name } = model.info
await model.dispose()
console.log(JSON.stringify({ isa, name, measured }))
