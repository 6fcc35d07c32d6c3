// SPDX-License-Identifier: Apache-2.0
// What the host costs beside the model: sampling, tokenizing and delivering tokens, an idle engine, more
// threads than cores. Appends to bench/results/host.csv.
//   node bench/host/run.mjs --model 7b.gguf
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, root, runContext } from '../common.mjs'
import { measure, warm } from '../measure.mjs'

const COLUMNS = [...CONTEXT_COLUMNS, 'metric', 'unit', 'value', 'elsewhere_percent', 'note']

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'host.csv') },
  },
})
if (!options.model) {
  console.error('usage: run.mjs --model FILE [--out FILE]')
  process.exit(2)
}
const cores = availableParallelism()
const many = 4 * cores
warm(options.model)
const run = (work, threads) => measure('host/process.mjs', [work, options.model, String(threads)])
const overhead = run('overhead', cores)
const [normal, crowded] = [run('speed', cores), run('speed', many)]

const outside = 'outside of the forward pass'
const rows = [
  ['step_1', 'ms', overhead.one.stepMs],
  ['host_share_1', '% of a step', overhead.one.outsidePercent, outside],
  ['javascript_share_1', '% of a step', overhead.one.javascriptPercent, 'beside the next step'],
  ['step_8', 'ms', overhead.eight.stepMs],
  ['host_share_8', '% of a step', overhead.eight.outsidePercent, outside],
  ['javascript_share_8', '% of a step', overhead.eight.javascriptPercent, 'beside the next step'],
  ['loop_delay_p99_8', 'ms', overhead.delay.p99],
  ['encode', 'us/token', overhead.encodeUs],
  ['decode_text', 'us/token', overhead.decodeUs],
  ['idle_cpu', '% of a core', overhead.idlePercent, 'from 100 ms after the last step'],
  ['prefill_128_oversubscribed', 'x', crowded.prefill / normal.prefill, `${many} threads`],
  ['decode_1_oversubscribed', 'x', crowded.decode / normal.decode, `${many} threads`],
].map(([metric, unit, value, note = '']) => ({
  metric,
  unit,
  value: Number(value.toPrecision(3)),
  note,
}))

const context = {
  ...runContext('bench/host/run.mjs'),
  isa: overhead.isa,
  threads: cores,
  model: overhead.name,
  elsewhere_percent: Math.max(overhead.elsewhere, normal.elsewhere, crowded.elsewhere),
}
appendCsv(
  options.out,
  COLUMNS,
  rows.map((row) => ({ ...context, ...row })),
)
console.table(rows)
