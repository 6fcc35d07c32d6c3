// SPDX-License-Identifier: Apache-2.0
// Runs maestrale_bench_matmul (matmul.cc) and appends its figures, with the share of what as many cores can do,
// to bench/results/kernels.csv.
//   node bench/kernels/run.mjs [--isa NAME] [--threads 1] [--type NAME] [--rows N,N,...]
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, buildBenchmark, commit, machine, probe, root } from '../common.mjs'

const COLUMNS = [
  ...[
    'date',
    'machine',
    'isa',
    'threads',
    'command',
    'commit',
    'type',
    'rows',
    'microseconds',
    'gmacs',
  ],
  ...['weight_gbs', 'limit_gmacs', 'percent_of_limit', 'mac_per_cycle'],
]
// These multiply in binary32, those in int16 (half as many a cycle as int8); all others in int8.
const FLOAT_TYPES = ['F32', 'F16', 'BF16']
const TABLE_TYPES = ['NF4', 'FP4']

const { values: options } = parseArgs({
  options: {
    isa: { type: 'string' },
    threads: { type: 'string', default: '1' },
    type: { type: 'string' },
    rows: { type: 'string' },
  },
})
const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
const limits = probe(Number(options.threads))
const output = execFileSync(buildBenchmark('maestrale_bench_matmul'), args).toString()
const context = {
  date: new Date().toISOString().slice(0, 16),
  machine: machine(),
  command: ['bench/kernels/run.mjs', ...args].join(' '),
  commit: commit(),
}
const [header, ...lines] = output.trim().split('\n')
const names = header.split(',')
const rows = lines.map((line) => {
  const row = Object.fromEntries(line.split(',').map((value, i) => [names[i], value]))
  // Either the arithmetic or reading the weights once takes this long at least.
  const peak = FLOAT_TYPES.includes(row.type)
    ? limits.f32Gmacs
    : limits.int8Gmacs / (TABLE_TYPES.includes(row.type) ? 2 : 1)
  const perByte = Number(row.gmacs) / Number(row.weight_gbs)
  const limit = Math.min(peak, limits.readGBs * perByte)
  const percent = Math.round((100 * Number(row.gmacs)) / limit)
  const perCycle = (Number(row.gmacs) / limits.clockGHz).toFixed(1)
  return {
    ...context,
    ...row,
    limit_gmacs: limit.toFixed(1),
    percent_of_limit: percent,
    mac_per_cycle: perCycle,
  }
})
appendCsv(join(root, 'bench', 'results', 'kernels.csv'), COLUMNS, rows)
console.table(
  rows.map(({ type, rows: n, gmacs, percent_of_limit }) => ({ type, n, gmacs, percent_of_limit })),
)
