// SPDX-License-Identifier: Apache-2.0
// Measures maestrale and node-llama-cpp side by side on one file, each in processes of its own, in turn,
// with the machine's limits probed in the same run, and appends the figures to bench/results/peers.csv.
//   npm install --prefix bench/peers
//   node bench/peers/run.mjs --model 7b.gguf [--work short,concurrent,prefill_long,abandon] [--threads N]
// --prefix COMMAND stands before each measuring process, e.g. 'taskset -c 0,1' or 'nice -n -10'.
// Keep the machine otherwise idle: both engines use all cores.
import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, commit, machine, modelCost, probe, root } from '../common.mjs'
import { DECODE_STEPS } from './work.mjs'

const COLUMNS = [
  ...['date', 'machine', 'isa', 'threads', 'model', 'command', 'commit', 'metric', 'unit'],
  ...['ours', 'theirs', 'ratio', 'limit', 'percent_of_limit', 'note'],
]
const WORKS = ['short', 'concurrent', 'prefill_long', 'abandon']

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

function measure(script, work) {
  console.error(`${work}: ${script}`)
  // Into the page cache, so that loading is not a measurement of the disk.
  execFileSync('cat', [options.model], { stdio: ['ignore', 'ignore', 'inherit'] })
  const prefix = options.prefix.split(' ').filter(Boolean)
  const args = [join(root, 'bench', 'peers', script), work, options.model, options.threads]
  const [program, ...rest] = [...prefix, process.execPath, ...args]
  const output = execFileSync(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] })
  return JSON.parse(output.toString().trim().split('\n').at(-1))
}

const inspection = JSON.parse(
  execFileSync(
    process.execPath,
    [join(root, 'dist/esm/cli/main.js'), 'inspect', options.model, '--json'],
    {
      maxBuffer: 1 << 28,
    },
  ).toString(),
)
const { macs, bytes } = modelCost(inspection.tensors)
const { nLayers, nHeads, nKvHeads, headDim, slidingWindow } = inspection.config
const fileSize = statSync(options.model).size

/** Tokens per second that the machine allows a step of n sequences behind `context` positions each. */
function decodeLimit(limits, n, context) {
  const kv = context * nLayers * nKvHeads * headDim * 4 // keys and values in f16
  const attention = context * nLayers * nHeads * headDim * 2
  const memory = (bytes + n * kv) / (limits.readGBs * 1e9)
  const compute = (n * macs) / (limits.int8Gmacs * 1e9) + (n * attention) / (limits.f32Gmacs * 1e9)
  return n / Math.max(memory, compute)
}

function prefillLimit(limits, n) {
  const keys = Math.min(n, slidingWindow || n)
  const attention = nLayers * nHeads * headDim * 2 * (keys / 2) // multiply-adds a token, on average
  return 1 / (macs / (limits.int8Gmacs * 1e9) + attention / (limits.f32Gmacs * 1e9))
}

/** Rows of one kind of work: [metric, unit, ours, theirs, limit, note]. */
function figures(work, ours, theirs, limits) {
  if (work === 'short') {
    const middle = 8 + DECODE_STEPS / 2
    return [
      ['load', 'ms', ours.loadMs, theirs.loadMs],
      ['prefill_512', 'tok/s', ours.prefill, theirs.prefill, prefillLimit(limits, 512)],
      ['decode_1', 'tok/s', ours.decode, theirs.decode, decodeLimit(limits, 1, middle)],
      ['ttft_16', 'ms', ours.ttft16, theirs.ttft16],
      ['peak_memory', 'x file', ours.peakBytes / fileSize, theirs.peakBytes / fileSize, 1],
    ]
  }
  if (work === 'concurrent') {
    const rows = [8, 16].map((n) => [
      `decode_${n}`,
      'tok/s',
      ours[n].tokensPerSecond,
      theirs[n]?.tokensPerSecond,
      decodeLimit(limits, n, 32),
    ])
    return [
      ...rows,
      ['loop_delay_p99_8', 'ms', ours[8].delayP99, theirs[8]?.delayP99],
      ['loop_delay_max_8', 'ms', ours[8].delayMax, theirs[8]?.delayMax],
    ]
  }
  if (work === 'prefill_long') {
    const note = 'theirs at 2048 tokens'
    return [
      ['prefill_4096', 'tok/s', ours.prefill, theirs.prefill, prefillLimit(limits, 4096), note],
      ['decode_1_at_4096', 'tok/s', ours.decode, theirs.decode, decodeLimit(limits, 1, 4096), note],
    ]
  }
  const note = 'theirs: until another sequence can be computed, which it has no way to hasten'
  return [['abandon_1000', 'ms', ours.ms, theirs.ms, undefined, note]]
}

const round = (value) => (value === undefined ? '' : Number(value.toPrecision(4)))

const context = {
  date: new Date().toISOString().slice(0, 16),
  machine: machine(),
  threads: options.threads,
  model: inspection.config.name,
  command: `bench/peers/run.mjs --work ${options.work} --threads ${options.threads}`,
  commit: commit(),
}
const rows = []
const limits = probe(options.threads)
for (const [name, value] of Object.entries(limits)) {
  if (name !== 'threads')
    rows.push({ ...context, metric: `probe_${name}`, unit: 'G/s', ours: value })
}
for (const work of works) {
  const ours = measure('ours.mjs', work)
  const theirs = options['ours-only'] ? {} : measure('theirs.mjs', work)
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
      note: note ?? '',
    })
  }
}
appendCsv(options.out, COLUMNS, rows)
console.table(
  rows.map(({ metric, unit, ours, theirs, ratio, limit }) => ({
    metric,
    unit,
    ours,
    theirs,
    ratio,
    limit,
  })),
)
