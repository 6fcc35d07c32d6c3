// SPDX-License-Identifier: Apache-2.0
// What every benchmark writes down beside its figures: machine, commit, limits; and the CSV files.
import { execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const buildFolder = join(root, 'build-bench')

export function machine() {
  const model = cpus()[0]?.model.replace(/\s+/g, ' ').trim() ?? 'unknown CPU'
  let family = ''
  try {
    const info = readFileSync('/proc/cpuinfo', 'utf8')
    const field = (name) => new RegExp(`^${name}\\s*: (.*)$`, 'm').exec(info)?.[1]
    family = ` (family ${field('cpu family')} model ${field('model')})`
  } catch {
    // Not Linux: the name says enough.
  }
  return `${model}${family}, ${availableParallelism()} cores`
}

/** The commit that is measured, with a mark when tracked files differ from it; the figures themselves may. */
export function commit() {
  const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()
  try {
    const changed = git(
      'status',
      '--porcelain',
      '--untracked-files=no',
      '--',
      '.',
      ':!bench/results',
    )
    return git('rev-parse', '--short', 'HEAD') + (changed ? '+changes' : '')
  } catch {
    return 'unknown'
  }
}

/** Columns that every CSV file of figures begins with. */
export const CONTEXT_COLUMNS = ['date', 'machine', 'isa', 'threads', 'model', 'command', 'commit']

/** What the rows of one run share. */
export function runContext(command) {
  return {
    date: new Date().toISOString().slice(0, 16),
    machine: machine(),
    command,
    commit: commit(),
  }
}

/** Builds a native benchmark (maestrale_probe, maestrale_bench_matmul) and returns its path. */
export function buildBenchmark(target) {
  const run = (...args) =>
    execFileSync('cmake', args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  run('-S', root, '-B', buildFolder, '-DMAESTRALE_BENCH=ON', '-DMAESTRALE_TESTS=OFF')
  run('--build', buildFolder, '--target', target, '--parallel', String(availableParallelism()))
  return join(buildFolder, 'bench', 'kernels', target)
}

/** What the machine can do at this moment, or of that only what memory can do: see bench/kernels/probe.cc. */
export function probe(threads, only = '') {
  const args = [String(threads ?? availableParallelism()), only]
  return JSON.parse(execFileSync(buildBenchmark('maestrale_probe'), args).toString())
}

const quote = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value)

/** Appends rows (objects) to a CSV file whose columns never change. */
export function appendCsv(path, columns, rows) {
  mkdirSync(dirname(path), { recursive: true })
  const header = `${columns.join(',')}\n`
  if (!existsSync(path)) appendFileSync(path, header)
  else if (!readFileSync(path, 'utf8').startsWith(header)) {
    throw new Error(`${path} has other columns than ${columns.join(',')}`)
  }
  const lines = rows.map((row) => columns.map((name) => quote(String(row[name] ?? ''))).join(','))
  appendFileSync(path, `${lines.join('\n')}\n`)
}

/** The rows of a CSV file as objects; none when there is no such file. */
export function readCsv(path) {
  if (!existsSync(path)) return []
  const records = readFileSync(path, 'utf8').split('\n').filter(Boolean).map(parseLine)
  const [columns = [], ...rows] = records
  return rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i] ?? ''])))
}

function parseLine(line) {
  const fields = line.match(/("([^"]|"")*"|[^,]*)(,|$)/g) ?? []
  if (!line.endsWith(',')) fields.pop()
  return fields.map((field) => field.replace(/,$/, '').replace(/^"|"$/g, '').replaceAll('""', '"'))
}
