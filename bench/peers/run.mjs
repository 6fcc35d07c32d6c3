// SPDX-License-Identifier: Apache-2.0
// Measures maestrale and node-llama-cpp side by side on one file. Each has a process of its own, and they take
// turns, with what memory can do probed before each: a virtual machine may read at one speed now and at
// another in ten seconds. Appends medians over the turns to bench/results/peers.csv.
//   npm install --prefix bench/peers
//   node bench/peers/run.mjs --model 7b.gguf [--work short,concurrent,long,abandon] [--threads N]
// --prefix COMMAND stands before each measuring process, e.g. 'taskset -c 0,1' or 'nice -n -10'.
// Keep the machine otherwise idle: both engines use all cores. There must be memory for both models.
import { statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, probe, root, runContext } from '../common.mjs'
import { decodeLimit, modelCost, prefillLimit } from '../limits.mjs'
import { inspect, warm } from '../measure.mjs'
import { compareTurns, median } from '../statistics.mjs'
import { assess } from '../targets.mjs'
import { Side } from './side.mjs'
import { DECODE_STEPS, WORK } from './work.mjs'

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
const WORKS = Object.keys(WORK)

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

// What the machine allows in the metrics that have a limit, from its probe.
const LIMITS = {
  prefill_512: (limits) => prefillLimit(cost, limits, 512),
  prefill_4096: (limits) => prefillLimit(cost, limits, 4096),
  decode_1: (limits) => decodeLimit(cost, limits, 1, 8 + DECODE_STEPS / 2),
  decode_1_at_4096: (limits) => decodeLimit(cost, limits, 1, 4096),
  decode_8: (limits) => decodeLimit(cost, limits, 8, 32),
  decode_16: (limits) => decodeLimit(cost, limits, 16, 32),
}
const NOTES = {
  prefill_4096: 'node-llama-cpp at 2048 tokens',
  decode_1_at_4096: 'node-llama-cpp at 2048 tokens',
  abandon_1000: 'node-llama-cpp: until another sequence can be computed',
}

/** Until the other side has cleared away what its turn left behind. */
const SETTLING_MS = 1000

/** The other side of --ours-only. */
const NOBODY = {
  opening: {},
  measure: () => ({ elsewhere: 0 }),
  end: () => ({}),
}

/** Both engines' `count` turns of a metric, the first to measure being the other one each time. */
async function takeTurns(metric, count, ours, theirs) {
  const turns = []
  for (let turn = 0; turn < count; turn++) {
    console.error(`${metric}, turn ${turn + 1} of ${count}`)
    const memory = probe(options.threads, 'memory')
    const order = turn % 2 === 0 ? [ours, theirs] : [theirs, ours]
    const results = new Map()
    for (const side of order) {
      await sleep(SETTLING_MS)
      results.set(side, await side.measure(metric, turn))
    }
    const [mine, other] = [results.get(ours), results.get(theirs)]
    turns.push({
      ours: mine.figure,
      theirs: other.figure,
      limit: LIMITS[metric]?.({ ...limits, ...memory }),
      delays: [mine.delay, other.delay],
      elsewhere: Math.max(mine.elsewhere, other.elsewhere),
    })
  }
  return turns
}

/** Rows of one kind of work: [metric, unit, what compareTurns() tells, CPU time elsewhere in percent]. */
async function figuresOf(work) {
  const args = [work, options.model, options.threads]
  warm(options.model)
  const ours = await Side.start('ours.mjs', args, options.prefix)
  isa = ours.opening.isa
  if (!options['ours-only']) warm(options.model)
  const theirs = options['ours-only']
    ? NOBODY
    : await Side.start('theirs.mjs', args, options.prefix)
  const once = (mine, other, limit) => compareTurns([{ ours: mine, theirs: other, limit }])
  const figures = []
  if (work === 'short') {
    figures.push(['load', 'ms', once(ours.opening.loadMs, theirs.opening.loadMs)])
  }
  for (const [metric, count] of Object.entries(WORK[work])) {
    const turns = await takeTurns(metric, count, ours, theirs)
    const elsewhere = median(turns.map((turn) => turn.elsewhere))
    const unit = LIMITS[metric] ? 'tok/s' : 'ms'
    figures.push([metric, unit, compareTurns(turns), elsewhere])
    if (metric !== 'decode_8') continue
    for (const name of ['p99', 'max']) {
      const delays = turns.map((turn) => turn.delays.map((delay) => delay?.[name]))
      const pairs = delays.map(([mine, other]) => ({ ours: mine, theirs: other }))
      figures.push([`loop_delay_${name}_8`, 'ms', compareTurns(pairs), elsewhere])
    }
  }
  const [mine, other] = [await ours.end(), await theirs.end()]
  if (work === 'short') {
    const peaks = [mine.peakBytes / fileSize, other.peakBytes / fileSize]
    figures.push(['peak_memory', 'x', once(...peaks, 1)])
  }
  return figures
}

const round = (value) => (value === undefined ? '' : Number(value.toPrecision(4)))

const context = {
  ...runContext(`bench/peers/run.mjs --work ${options.work} --threads ${options.threads}`),
  threads: options.threads,
  model: config.name,
}
const PROBE_UNITS = { clockGHz: 'GHz', coreRoundTripNs: 'ns' }
let isa = ''
const limits = probe(options.threads)
const rows = Object.entries(limits)
  .filter(([name]) => name !== 'threads')
  .map(([name, value]) => ({
    ...context,
    metric: `probe_${name}`,
    unit: PROBE_UNITS[name] ?? 'G/s',
    ours: value,
  }))
for (const work of works) {
  for (const [metric, unit, compared, elsewhere] of await figuresOf(work)) {
    rows.push({
      ...context,
      isa,
      metric,
      unit,
      ours: round(compared.ours),
      theirs: round(compared.theirs),
      ratio: round(compared.ratio),
      limit: round(compared.limit),
      percent_of_limit: compared.share === undefined ? '' : Math.round(100 * compared.share),
      elsewhere_percent: elsewhere === undefined ? '' : Number(elsewhere.toFixed(1)),
      note: NOTES[metric] ?? '',
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
