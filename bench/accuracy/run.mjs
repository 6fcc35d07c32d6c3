// SPDX-License-Identifier: Apache-2.0
// What storage formats cost in accuracy: a Hugging Face directory in BF16 is quantised to each format, and the
// distributions over 2,048 tokens of prose are compared with those of the original, whose pass is in binary32.
// That pass itself is held against the published code's (tests/vectors/mini). Appends to
// bench/results/accuracy.csv.
//   node bench/accuracy/run.mjs --model DIRECTORY [--types q4_k_m,q8_0]
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { loadModel } from '../../dist/esm/index.js'
import { appendCsv, CONTEXT_COLUMNS, root, runContext } from '../common.mjs'
import { argmax, klDivergence, logProbabilities, perplexity } from './divergence.mjs'

const NUMBERS = [
  'bits_per_weight',
  'kl_mean',
  'kl_max',
  'same_top',
  'perplexity',
  'perplexity_percent',
]
const COLUMNS = [...CONTEXT_COLUMNS, 'type', 'kv_cache_type', ...NUMBERS]
const TYPES = 'f16,q8_0,q6_k,q5_k_m,q5_0,q4_k_m,q4_k_s,q4_0,q3_k_m,q2_k'
const VECTORS = join(root, 'tests', 'vectors', 'mini', 'mini.vectors.safetensors')
// Of log-probabilities, between our binary32 pass, whose keys and values are in f16, and the published code's.
const MOST_DIFFERENCE = 5e-3

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    types: { type: 'string', default: TYPES },
    out: { type: 'string', default: join(root, 'bench', 'results', 'accuracy.csv') },
  },
})
if (!options.model) {
  console.error(`usage: run.mjs --model DIRECTORY [--types ${TYPES}] [--out FILE]`)
  process.exit(2)
}

function readVectors() {
  const file = readFileSync(VECTORS)
  const start = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, start))
  const read = (name, kind) => {
    const [begin, end] = header[name].data_offsets
    return new kind(Uint8Array.from(file.subarray(start + begin, start + end)).buffer)
  }
  return { tokens: read('long.tokens', Int32Array), logprobs: read('long.logprobs', Float32Array) }
}

/** Log-probabilities of every position, and what the model is. */
async function distributions(path, kvCacheType = 'f16') {
  const model = await loadModel(path, { contextLength: tokens.length, kvCacheType })
  const { info } = model
  const rows = logProbabilities(await model.logits([...tokens]), info.vocabSize)
  await model.dispose()
  return { rows, info }
}

const { tokens, logprobs } = readVectors()
const { rows: exact, info } = await distributions(options.model)
const difference = Math.max(
  ...logprobs.map((value, i) => Math.abs(value - exact[i][tokens[i + 1]])),
)
if (!(difference <= MOST_DIFFERENCE))
  throw new Error(`the binary32 pass is off by ${difference} from the published code's`)
const reference = perplexity(exact, tokens)

async function compare(type, kvCacheType, path, bytes) {
  const { rows } = await distributions(path, kvCacheType)
  const divergences = exact.map((row, i) => klDivergence(row, rows[i]))
  const figures = {
    bits_per_weight: (8 * bytes) / info.parameters,
    kl_mean: divergences.reduce((sum, value) => sum + value, 0) / divergences.length,
    kl_max: Math.max(...divergences),
    same_top: exact.filter((row, i) => argmax(row) === argmax(rows[i])).length / exact.length,
    perplexity: perplexity(rows, tokens),
  }
  figures.perplexity_percent = 100 * (figures.perplexity / reference - 1)
  for (const name of NUMBERS) figures[name] = Number(figures[name].toPrecision(4))
  return { type, kv_cache_type: kvCacheType, ...figures }
}

const rows = []
for (const kvCacheType of ['f16', 'bf16', 'q8_0'])
  rows.push(await compare('bf16', kvCacheType, options.model, 2 * info.parameters))
const folder = mkdtempSync(join(tmpdir(), 'accuracy-'))
try {
  for (const type of options.types.split(',')) {
    const path = join(folder, `${type}.gguf`)
    const program = join(root, 'dist/esm/cli/main.js')
    execFileSync(
      process.execPath,
      [program, 'quantize', options.model, path, '--type', type, '--json'],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    )
    rows.push(await compare(type, 'f16', path, statSync(path).size))
    rmSync(path)
  }
} finally {
  rmSync(folder, { recursive: true })
}
const context = {
  ...runContext('bench/accuracy/run.mjs'),
  isa: info.isa,
  threads: info.threads,
  model: info.name,
}
appendCsv(
  options.out,
  COLUMNS,
  rows.map((row) => ({ ...context, ...row })),
)
console.log(
  `binary32 pass within ${difference.toExponential(1)} of the published code's log-probabilities`,
)
console.table(rows)
