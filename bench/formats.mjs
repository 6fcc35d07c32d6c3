// SPDX-License-Identifier: Apache-2.0
// Prefill and decode of one model in several storage types, quantised while loading: the ratio of each prefill to
// the first type's, and the share of what reading the weights once a step allows. The types take turns, so that a
// machine that changes its pace changes it for all. Appends to bench/results/formats.csv.
//   node bench/formats.mjs --model 7b.gguf [--types q4_k,nf4,fp4] [--prompt 512] [--gen 24] [--repeats 3] [--threads N]
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, probe, root, runContext } from './common.mjs'
import { decodeLimit, modelCost, quantizedCost } from './limits.mjs'
import { inspect, measure, warm } from './measure.mjs'
import { median } from './statistics.mjs'

const COLUMNS = [
  ...CONTEXT_COLUMNS,
  ...['type', 'prompt', 'gen', 'repeats', 'weight_bytes', 'prefill_tok_s', 'prefill_ratio'],
  ...['decode_tok_s', 'decode_limit_tok_s', 'decode_percent_of_limit', 'elsewhere_percent'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    types: { type: 'string', default: 'q4_k,nf4,fp4' },
    prompt: { type: 'string', default: '512' },
    gen: { type: 'string', default: '24' },
    repeats: { type: 'string', default: '3' },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'formats.csv') },
  },
})
if (!options.model) {
  console.error(
    'usage: formats.mjs --model FILE [--types LIST] [--prompt N] [--gen N] [--repeats N] [--threads N] [--out FILE]',
  )
  process.exit(2)
}

const { prompt, gen, repeats, threads } = options
const types = options.types.split(',')
const cost = modelCost(inspect(options.model))
const limits = probe(Number(threads))
const seen = new Map(types.map((type) => [type, []]))
warm(options.model)
for (let i = 0; i < Number(repeats); i++) {
  for (const type of types) {
    const work = ['--prompt', prompt, '--gen', gen, '--repeats', '1', '--threads', threads]
    const args = ['bench', '--model', options.model, '--quantization', type, '--json', ...work]
    seen.get(type).push(measure('../dist/esm/cli/main.js', args))
  }
}

const [first] = types
const middle = (type, field) => median(seen.get(type).map((report) => report[field]))
const rows = types.map((type) => {
  const [report] = seen.get(type)
  const quantized = quantizedCost(cost, type)
  const prefill = middle(type, 'prefillTokensPerSecond')
  const decode = middle(type, 'decodeTokensPerSecond')
  const limit = decodeLimit(quantized, limits, 1, Number(prompt) + Number(gen) / 2)
  return {
    ...runContext(
      `bench/formats.mjs --types ${options.types} --prompt ${prompt} --gen ${gen} --repeats ${repeats} --threads ${threads}`,
    ),
    isa: report.isa,
    threads,
    model: report.model,
    type,
    prompt,
    gen,
    repeats,
    weight_bytes: quantized.bytes,
    prefill_tok_s: prefill.toFixed(2),
    prefill_ratio: (prefill / middle(first, 'prefillTokensPerSecond')).toFixed(3),
    decode_tok_s: decode.toFixed(3),
    decode_limit_tok_s: limit.toFixed(3),
    decode_percent_of_limit: ((100 * decode) / limit).toFixed(1),
    elsewhere_percent: Math.max(...seen.get(type).map(({ elsewhere }) => elsewhere)),
  }
})
appendCsv(options.out, COLUMNS, rows)
console.table(
  rows.map(({ type, prefill_tok_s, prefill_ratio, decode_tok_s, decode_percent_of_limit }) => ({
    type,
    prefill_tok_s,
    prefill_ratio,
    decode_tok_s,
    decode_percent_of_limit,
  })),
)
