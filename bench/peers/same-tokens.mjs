// SPDX-License-Identifier: Apache-2.0
// Does llama.cpp read the files that quantizeModel() writes, and does it make the same tokens of them? Quantises
// MODEL to each type and compares greedy completions, which must stay below the sliding window: llama.cpp has
// none. With weights in f16 and bf16 all tokens must agree; with others both engines round the activations, each
// in its way, so that completions may part where two tokens are nearly as likely.
//   node bench/peers/same-tokens.mjs MODEL [TYPE...]        exit status 1 when tokens of f16 or bf16 differ
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

for (const type of given.length > 0 ? given : TYPES) {
  const path = join(folder, `${type}.gguf`)
  const { relativeError } = await quantizeModel(source, path, { type })
  const { prompts, all } = await ours(path)
  const other = await theirs(path, prompts)
  const same = all.map((tokens, i) => agreement(tokens, other[i]))
  const lengths = all.map((tokens, i) => Math.max(tokens.length, other[i].length))
  if (type.endsWith('f16') && same.some((n, i) => n < lengths[i])) process.exitCode = 1
  console.log(
    `${type}: ${same} of ${lengths} tokens agree; relative error ${relativeError.toPrecision(3)}`,
  )
}
rmSync(folder, { recursive: true })
process.exit()
