// SPDX-License-Identifier: Apache-2.0
// Measures maestrale and node-llama-cpp side by side on one file, each in processes of its own, in turn,
// with the machine's limits probed in the same run, and appends the figures to bench/results/peers.csv.
//   npm install --prefix bench/peers
//   node bench/peers/run.mjs --model 7b.gguf [--work short,concurrent,long,abandon] [--threads N]
// --prefix COMMAND stands before each measuring process, e.g. 'taskset -c 0,1' or 'nice -n -10'.
// Keep the machine otherwise idle: both engines use all cores.
import { statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, probe, root, runContext } from '../common.mjs'
import { decodeLimit, modelCost, prefillLimit } from '../limits.mjs'
import { inspect, measure, warm } from '../measure.mjs'
import { assess } from '../targets.mjs'
import { CONTEXT, DECODE_STEPS } from './work.mjs'

const COLUMNS = [
  ...CONTEXT_COLUMNS,
  ...[
    'metric',
    'unit',
    'ours',
    'theirs',
    'ratio',
    'limit',
    'percent_of_limit',
    'elsewhere_percent',
    'note',
  ],
]
const WORKS = Object.keys(CONTEXT)

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    work: { type: 'string', default: WORKS.join(',') },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'peers.csv') },
    'ours-only': { type: 'boolean', default: false },
    prefix: { type: 'string', default: '' },
  },
})
const works = options.work.split(',')
if (!options.model || works.some((work) => !WORKS.includes(work))) {
  console.error(
    `usage: run.mjs --model FILE [--work ${WORKS.join(',')}] [--threads N] [--out FILE] [--ours-only]`,
  )
  process.exit(2)
}

const { config, ...file } = inspect(options.model)
const cost = modelCost({ config, tensors: file.tensors })
const fileSize = statSync(options.model).size

/** Rows of one kind of work: [metric, unit, ours, theirs, limit, note]. `theirs` may be empty. */
function figures(work, ours, theirs, limits) {
  if (work === 'short') {
    const middle = 8 + DECODE_STEPS / 2
    return [
      ['load', 'ms', ours.loadMs, theirs.loadMs],
      ['prefill_512', 'tok/s', ours.prefill, theirs.prefill, prefillLimit(cost, limits, 512)],
      ['decode_1', 'tok/s', ours.decode, theirs.decode, decodeLimit(cost, limits, 1, middle)],
      ['ttft_16', 'ms', ours.ttft16, theirs.ttft16],
      ['peak_memory', 'x', ours.peakBytes / fileSize, theirs.peakBytes / fileSize, 1],
    ]
  }
  if (work === 'concurrent') {
    const rows = [8, 16].map((n) => {
      const [mine, other] = [ours[n].tokensPerSecond, theirs[n]?.tokensPerSecond]
      return [`decode_${n}`, 'tok/s', mine, other, decodeLimit(cost, limits, n, 32)]
    })
    return [
      ...rows,
      ['loop_delay_p99_8', 'ms', ours[8].delay.p99, theirs[8]?.delay.p99],
      ['loop_delay_max_8', 'ms', ours[8].delay.max, theirs[8]?.delay.max],
    ]
  }
  if (work === 'long') {
    const note = 'node-llama-cpp at 2048 tokens'
    const limit = decodeLimit(cost, limits, 1, 4096)
    return [
      [
        'prefill_4096',
        'tok/s',
        ours.prefill,
        theirs.prefill,
        prefillLimit(cost, limits, 4096),
        note,
      ],
      ['decode_1_at_4096', 'tok/s', ours.decode, theirs.decode, limit, note],
    ]
  }
  const note = 'node-llama-cpp: until another sequence can be computed'
  return [['abandon_1000', 'ms', ours.ms, theirs.ms, undefined, note]]
}

const round = (value) => (value === undefined ? '' : Number(value.toPrecision(4)))

const context = {
  ...runContext(`bench/peers/run.mjs --work ${options.work} --threads ${options.threads}`),
  threads: options.threads,
  model: config.name,
}
const limits = probe(options.threads)
const rows = Object.entries(limits)
  .filter(([name]) => name !== 'threads')
  .map(([name, value]) => ({
    ...context,
    metric: `probe_${name}`,
    unit: name === 'clockGHz' ? 'GHz' : 'G/s',
    ours: value,
  }))
for (const work of works) {
  const side = (script) => {
    warm(options.model)
    return measure(`peers/${script}`, [work, options.model, options.threads], options.prefix)
  }
  const ours = side('ours.mjs')
  const theirs = options['ours-only'] ? {} : side('theirs.mjs')
  for (const [metric, unit, mine, other, limit, note] of figures(work, ours, theirs, limits)) {
    rows.push({
      ...context,
      isa: ours.isa,
      metric,
      unit,
      ours: round(mine),
      theirs: round(other),
      ratio: other === undefined ? '' : round(mine / other),
      limit: round(limit),
      percent_of_limit: limit === undefined ? '' : Math.round((100 * mine) / limit),
      elsewhere_percent: Math.max(ours.elsewhere, theirs.elsewhere ?? 0),
      note: note ?? '',
    })
  }
}
appendCsv(options.out, COLUMNS, rows)
console.table(
  rows.map((row) => {
    const { metric, unit, ours, theirs, ratio, limit, percent_of_limit: percent } = row
    const { wanted, possible, verdict } = assess(row)
    return {
      metric,
      unit,
      ours,
      theirs,
      ratio,
      possible: round(possible),
      limit,
      percent,
      wanted,
      verdict,
    }
  }),
)
