// SPDX-License-Identifier: Apache-2.0
// Decoding 1 to 64 sequences at a time, and what the machine allows, probed in the same run: a step has a row
// for each sequence, so this is the curve of a whole model over rows. Appends to bench/results/rows.csv.
//   node bench/rows/run.mjs --model 7b.gguf [--rows N,N,...] [--threads N]
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, probe, root, runContext } from '../common.mjs'
import { decodeLimit, modelCost } from '../limits.mjs'
import { inspect, measure, warm } from '../measure.mjs'

const COLUMNS = [
  ...CONTEXT_COLUMNS,
  ...['rows', 'tok_s', 'step_ms', 'limit_tok_s', 'percent_of_limit', 'elsewhere_percent'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    rows: {
      type: 'string',
      default: '1,2,3,4,5,6,7,8,10,12,14,16,20,24,28,32,40,48,64',
    },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'rows.csv') },
  },
})
if (!options.model) {
  console.error('usage: run.mjs --model FILE [--rows N,N,...] [--threads N] [--out FILE]')
  process.exit(2)
}
const cost = modelCost(inspect(options.model))
const limits = probe(options.threads)
warm(options.model)
const args = [options.model, options.threads, options.rows]
const { isa, name, measured, elsewhere } = measure('rows/process.mjs', args)
const context = {
  ...runContext(`bench/rows/run.mjs --threads ${options.threads}`),
  isa,
  threads: options.threads,
  model: name,
  elsewhere_percent: elsewhere,
}
const rows = measured.map(({ n, tokensPerSecond }) => {
  const limit = decodeLimit(cost, limits, n, 4)
  return {
    rows: n,
    tok_s: Number(tokensPerSecond.toPrecision(4)),
    step_ms: Number(((1000 * n) / tokensPerSecond).toPrecision(4)),
    limit_tok_s: Number(limit.toPrecision(4)),
    percent_of_limit: Math.round((100 * tokensPerSecond) / limit),
  }
})
appendCsv(
  options.out,
  COLUMNS,
  rows.map((row) => ({ ...context, ...row })),
)
console.table(rows)
