// SPDX-License-Identifier: Apache-2.0
// Runs a native benchmark and appends its figures, with the share of what as many cores can do:
//   node bench/kernels/run.mjs matmul [--isa NAME] [--threads 1] [--type NAME] [--rows N,N,...]    matmul.cc
//   node bench/kernels/run.mjs attention [--isa NAME] [--threads 1] [--kv f16|bf16|q8_0]           attention.cc
// The figures of products go to bench/results/kernels.csv, those of attention to attention.csv.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, buildBenchmark, commit, machine, probe, root } from '../common.mjs'

const CONTEXT = ['date', 'machine', 'isa', 'threads', 'command', 'commit']
const LIMITS = ['limit_gmacs', 'percent_of_limit', 'mac_per_cycle']
const MATMUL = ['type', 'rows', 'microseconds', 'gmacs', 'weight_gbs']
const ATTENTION = ['kv', 'sequences', 'rows', 'context', 'microseconds', 'gmacs', 'cache_gbs']
// These multiply in binary32, those in int16 as attention does (half as many a cycle as int8); all others in int8.
const FLOAT_TYPES = ['F32', 'F16', 'BF16']
const TABLE_TYPES = ['NF4', 'FP4']

function matmulPeak({ isa, type }, limits) {
  if (isa === 'avx512bf16' && type === 'BF16') return limits.bf16Gmacs
  if (FLOAT_TYPES.includes(type)) return limits.f32Gmacs
  return limits.int8Gmacs / (TABLE_TYPES.includes(type) ? 2 : 1)
}

const BENCHMARKS = {
  matmul: {
    file: 'kernels.csv',
    columns: [...CONTEXT, ...MATMUL, ...LIMITS],
    options: ['isa', 'threads', 'type', 'rows'],
    bytes: 'weight_gbs',
    peak: matmulPeak,
  },
  attention: {
    file: 'attention.csv',
    columns: [...CONTEXT, ...ATTENTION, ...LIMITS],
    options: ['isa', 'threads', 'kv'],
    // What is repeated lies in the last-level cache, so memory is no limit.
    peak: (_, limits) => limits.int8Gmacs / 2,
  },
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    isa: { type: 'string' },
    threads: { type: 'string', default: '1' },
    type: { type: 'string' },
    rows: { type: 'string' },
    kv: { type: 'string' },
  },
})
const benchmark = BENCHMARKS[positionals[0]]
if (!benchmark || Object.keys(values).some((name) => !benchmark.options.includes(name))) {
  console.error('usage: run.mjs matmul|attention [options], see the head of this file')
  process.exit(2)
}
const args = Object.entries(values).flatMap(([name, value]) => [`--${name}`, value])
const limits = probe(Number(values.threads))
const output = execFileSync(buildBenchmark(`maestrale_bench_${positionals[0]}`), args).toString()
const context = {
  date: new Date().toISOString().slice(0, 16),
  machine: machine(),
  command: ['bench/kernels/run.mjs', positionals[0], ...args].join(' '),
  commit: commit(),
}
const [header, ...lines] = output.trim().split('\n')
const names = header.split(',')
const rows = lines.map((line) => {
  const row = Object.fromEntries(line.split(',').map((value, i) => [names[i], value]))
  // Either the arithmetic or reading the weights once takes this long at least.
  const memory = benchmark.bytes
    ? (limits.readGBs * Number(row.gmacs)) / Number(row[benchmark.bytes])
    : Number.POSITIVE_INFINITY
  const limit = Math.min(benchmark.peak(row, limits), memory)
  return {
    ...context,
    ...row,
    limit_gmacs: limit.toFixed(1),
    percent_of_limit: Math.round((100 * Number(row.gmacs)) / limit),
    mac_per_cycle: (Number(row.gmacs) / limits.clockGHz).toFixed(1),
  }
})
appendCsv(join(root, 'bench', 'results', benchmark.file), benchmark.columns, rows)
console.table(
  rows.map((row) =>
    Object.fromEntries(
      benchmark.columns.filter((name) => !CONTEXT.includes(name)).map((name) => [name, row[name]]),
    ),
  ),
)
