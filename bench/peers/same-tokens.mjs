// SPDX-License-Identifier: Apache-2.0
// Does llama.cpp read the files that quantizeModel() writes, and does it make the same tokens of them? Quantises
// MODEL to each type and compares greedy completions, which must stay below the sliding window: llama.cpp has
// none. Both engines round the activations of quantised products to 8 bits, each in its way, so completions may
// part where two tokens are nearly as likely. Whether they are, a float pass over the same weights tells: the file
// written once more in F32.
//   node bench/peers/same-tokens.mjs MODEL [TYPE...]        exit status 1 when tokens part elsewhere
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getLlama } from 'node-llama-cpp'

import { loadModel, quantizeModel } from '../../dist/esm/index.js'

const TYPES = [
  'f16',
  'bf16',
  'q8_0',
  'q6_k',
  'q5_k_m',
  'q5_1',
  'q5_0',
  'q4_k_m',
  'q4_k_s',
  'q4_1',
  'q4_0',
  'q3_k_m',
  'q2_k',
]
const PROMPTS = [
  'And it came to pass, when the ship had sailed,',
  'The king said to his son:',
  'In the beginning',
]
const LENGTH = 48
// The distance of two log-probabilities of one engine from those of the other has sqrt(4) times the error that one
// has in one engine; three times that is still chance.
const NEAR_TIE = 6

const [source, ...given] = process.argv.slice(2)
const folder = mkdtempSync(join(tmpdir(), 'maestrale-peers-'))
// One thread: its barriers spin, which takes forever on a machine that does other things too.
const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 1, logLevel: 'error' })

async function theirs(path, prompts) {
  const model = await llama.loadModel({ modelPath: path })
  const context = await model.createContext({ contextSize: 256, threads: 1 })
  const all = []
  for (const prompt of prompts) {
    const sequence = context.getSequence()
    const tokens = []
    for await (const token of sequence.evaluate([...prompt], { temperature: 0 })) {
      tokens.push(token)
      if (tokens.length === LENGTH) break
    }
    sequence.dispose()
    all.push(tokens)
  }
  await model.dispose()
  return all
}

async function ours(path) {
  const model = await loadModel(path)
  const prompts = PROMPTS.map((text) => model.tokenizer.encode(text))
  const options = { temperature: 0, repetitionPenalty: 1, maxNewTokens: LENGTH }
  const all = []
  for (const prompt of prompts) all.push([...(await model.generate(prompt, options)).tokens])
  await model.dispose()
  return { prompts, all }
}

/** How many tokens agree before the first difference. */
function agreement(a, b) {
  const at = a.findIndex((token, i) => token !== b[i])
  return at < 0 ? a.length : at
}

/** Log-probabilities at every position of the texts, as arrays of `[vocabSize]`. */
async function logProbabilities(path, texts) {
  const model = await loadModel(path)
  const size = model.info.vocabSize
  const all = []
  for (const tokens of texts) {
    const logits = await model.logits(tokens)
    all.push(tokens.map((_, i) => logSoftmax(logits.subarray(i * size, (i + 1) * size))))
  }
  await model.dispose()
  return all
}

function logSoftmax(row) {
  const largest = row.reduce((a, b) => Math.max(a, b))
  const sum = row.reduce((total, x) => total + Math.exp(x - largest), 0)
  return row.map((x) => x - largest - Math.log(sum))
}

/** Root mean square of the differences over the 40 likeliest tokens of every position. */
function noise(rows, exact) {
  let [sum, count] = [0, 0]
  for (const [i, row] of exact.entries()) {
    const likeliest = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, 40)
    for (const token of likeliest) sum += (rows[i][token] - row[token]) ** 2
    count += likeliest.length
  }
  return Math.sqrt(sum / count)
}

/** What a float pass says of the places where the completions part. */
async function examineParting(path, parted) {
  const floats = join(folder, 'floats.gguf')
  await quantizeModel(path, floats, { type: 'f32' })
  const texts = parted.map(({ text }) => text)
  const exact = await logProbabilities(floats, texts)
  const rounded = await logProbabilities(path, texts)
  for (const [i, { name, at, pair }] of parted.entries()) {
    const last = exact[i].at(-1)
    const gap = Math.abs(last[pair[0]] - last[pair[1]])
    const error = noise(rounded[i], exact[i])
    const nearTie = gap <= NEAR_TIE * error
    if (!nearTie) process.exitCode = 1
    console.log(
      `  ${name}, token ${at}: two tokens ${gap.toFixed(4)} apart, log-probabilities of ours are exact to ` +
        `${error.toFixed(4)}: ${nearTie ? 'a near tie' : 'NO NEAR TIE'}`,
    )
  }
}

for (const type of given.length > 0 ? given : TYPES) {
  const path = join(folder, `${type}.gguf`)
  const { relativeError } = await quantizeModel(source, path, { type })
  const { prompts, all } = await ours(path)
  const other = await theirs(path, prompts)
  const same = all.map((tokens, i) => agreement(tokens, other[i]))
  const lengths = all.map((tokens, i) => Math.max(tokens.length, other[i].length))
  console.log(
    `${type}: ${same} of ${lengths} tokens agree; relative error ${relativeError.toPrecision(3)}`,
  )
  const parted = same.flatMap((at, i) =>
    at === lengths[i]
      ? []
      : {
          name: `'${PROMPTS[i]}'`,
          at,
          text: [...prompts[i], ...all[i].slice(0, at)],
          pair: [all[i][at], other[i][at]],
        },
  )
  if (parted.length > 0) await examineParting(path, parted)
}
rmSync(folder, { recursive: true })
process.exit()
