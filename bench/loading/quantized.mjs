// SPDX-License-Identifier: Apache-2.0
// Quantising while loading: how long it takes, the memory that the model holds afterwards, without that of Node before
// it, and the peak of memory against that. Appends to bench/results/loading.csv.
//   node bench/loading/quantized.mjs --model bf16.gguf [--types nf4,q4_k_m] [--threads N]
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, root, runContext } from '../common.mjs'
import { measure, warm } from '../measure.mjs'

const COLUMNS = [...CONTEXT_COLUMNS, 'metric', 'unit', 'value', 'note']

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    types: { type: 'string', default: 'nf4,q4_k_m,q8_0' },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'loading.csv') },
  },
})
if (!options.model) {
  console.error('usage: quantized.mjs --model FILE [--types LIST] [--threads N] [--out FILE]')
  process.exit(2)
}

warm(options.model)
const rows = options.types.split(',').flatMap((type) => {
  const seen = measure('loading/process.mjs', [options.model, options.threads, type])
  const context = {
    ...runContext(`bench/loading/quantized.mjs --types ${type} --threads ${options.threads}`),
    isa: seen.isa,
    threads: options.threads,
    model: seen.name,
  }
  const held = seen.heldBytes - seen.nodeBytes
  const row = (metric, unit, value, note) => ({
    ...context,
    metric,
    unit,
    value: Number(value.toPrecision(4)),
    note: `${note}; others took ${seen.elsewhere} % of the CPU`,
  })
  return [
    row(`load_as_${type}`, 'ms', seen.loadMs, 'quantised while loading'),
    row(`held_as_${type}`, 'bytes', held, 'weights, KV cache and scratch'),
    row(
      `peak_as_${type}`,
      'x held',
      (seen.peakBytes - seen.nodeBytes) / held,
      'without that of Node',
    ),
  ]
})
appendCsv(options.out, COLUMNS, rows)
console.table(rows.map(({ metric, unit, value, note }) => ({ metric, unit, value, note })))
