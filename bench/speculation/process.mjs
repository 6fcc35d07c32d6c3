// SPDX-License-Identifier: Apache-2.0
// Runs requests with and without speculation and prints one JSON object: { isa, name, threads, rows }. See
// run.mjs.
//   process.mjs answers MODEL       requests whose answers repeat their words: summaries and JSON
//   process.mjs forced MODEL        any model, with a chosen rate of right guesses
import { readFileSync } from 'node:fs'

import { loadModel } from '../../dist/esm/index.js'

const [work, path] = process.argv.slice(2)
const model = await loadModel(path, { contextLength: 512 })
const endless = { [model.tokenizer.eosId]: -Infinity }

/** Runs `starts` at the same time, each a function from options to a Generation. */
async function together(starts, options) {
  const before = model.stats()
  const started = performance.now()
  const results = await Promise.all(starts.map((start) => start(options)))
  const seconds = (performance.now() - started) / 1000
  const sum = (field) => results.reduce((total, { usage }) => total + usage[field], 0)
  return {
    tokens: results.map((result) => [...result.tokens].join()),
    generated: sum('completionTokens'),
    guessed: sum('guessedTokens'),
    accepted: sum('acceptedTokens'),
    decodeMs: results.reduce((total, { timings }) => Math.max(total, timings.decodeMs), 0),
    seconds,
    steps: model.stats().steps - before.steps,
  }
}

/** The requests of `batches`, one batch after the other, added up. */
async function all(batches, options) {
  const runs = []
  for (const batch of batches) runs.push(await together(batch, options))
  const sum = (field) => runs.reduce((total, run) => total + run[field], 0)
  return {
    tokens: runs.flatMap((run) => run.tokens).join(';'),
    generated: sum('generated'),
    guessed: sum('guessed'),
    accepted: sum('accepted'),
    decodeMs: sum('decodeMs'),
    steps: sum('steps'),
  }
}

/** One row for each kind of speculation, all against the same plain run. */
async function compare(label, batches, options, speculations) {
  const plain = await all(batches, options)
  const rows = []
  for (const speculation of speculations) {
    const run = await all(batches, { ...options, speculation })
    if (run.tokens !== plain.tokens) throw new Error(`speculation changed the text of ${label}`)
    rows.push({
      requests: label,
      sequences: batches[0].length,
      max_tokens: speculation.maxTokens,
      min_ngram: speculation.minNgram,
      guessed: run.guessed / run.generated,
      right: run.guessed ? run.accepted / run.guessed : 0,
      steps: run.steps / plain.steps,
      plain_tok_s: (plain.generated / plain.decodeMs) * 1000,
      tok_s: (run.generated / run.decodeMs) * 1000,
      gain: plain.decodeMs / run.decodeMs,
    })
  }
  return rows
}

const rows = []
await model.generate([1, 2, 3], { maxNewTokens: 2, temperature: 0 }) // warms up
if (work === 'answers') {
  const requests = JSON.parse(readFileSync(new URL('requests.json', import.meta.url), 'utf8'))
  const speculations = [1, 2, 3].flatMap((minNgram) =>
    [3, 7, 15].map((maxTokens) => ({ maxTokens, minNgram })),
  )
  for (const [label, contents] of Object.entries(requests)) {
    const batches = contents.map((content) => [
      (options) => model.chat([{ role: 'user', content }], options),
    ])
    const options = { temperature: 0, repetitionPenalty: 1, maxNewTokens: 80 }
    rows.push(...(await compare(label, batches, options, speculations)))
  }
} else {
  // Biases leave the model two tokens to draw from, and the temperature evens out what it thinks of them: each
  // token is the commoner one with probability p, whatever came before. What followed the last tokens before
  // then follows again with p^2 + (1 - p)^2.
  const [commoner, other] = [1000, 2000]
  const [temperature, bias] = [100, 1e5]
  for (const p of [1, 0.9, 0.7]) {
    const options = {
      topK: 0,
      topP: 1,
      repetitionPenalty: 1,
      temperature,
      maxNewTokens: 32,
      logitBias: {
        ...endless,
        [commoner]: bias,
        [other]: bias + temperature * Math.max(-1e3, Math.log((1 - p) / p)),
      },
    }
    const label = `commoner of two tokens ${100 * p} %`
    const run = (n) => [
      Array.from(
        { length: n },
        (_, i) => (given) => model.generate([1, 300 + i], { ...given, seed: i }),
      ),
    ]
    const lengths = (...list) => list.map((maxTokens) => ({ maxTokens, minNgram: 2 }))
    rows.push(...(await compare(label, run(1), options, lengths(3, 7, 15))))
    rows.push(...(await compare(label, run(4), options, lengths(1, 3))))
  }
}
const { isa, name, threads } = model.info
await model.dispose()
console.log(JSON.stringify({ isa, name, threads, rows }))
