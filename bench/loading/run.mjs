// SPDX-License-Identifier: Apache-2.0
// How long a model takes to load from the page cache, from GGUF and packed, and how much memory one and two
// processes need for it. Appends to bench/results/loading.csv.
//   node bench/loading/run.mjs --model 7b.gguf [--packed 7b.maestrale] [--threads N] [--repeats N]
// --packed is made when it does not exist and kept; without it a temporary file is used.
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, root, runContext } from '../common.mjs'
import { parseSmaps, warm } from '../measure.mjs'
import { median } from '../statistics.mjs'

const COLUMNS = [...CONTEXT_COLUMNS, 'metric', 'unit', 'value', 'note']

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    packed: { type: 'string' },
    threads: { type: 'string', default: String(availableParallelism()) },
    repeats: { type: 'string', default: '3' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'loading.csv') },
  },
})
if (!options.model) {
  console.error(
    'usage: run.mjs --model FILE [--packed FILE] [--threads N] [--repeats N] [--out FILE]',
  )
  process.exit(2)
}

/** A process that holds the model: what it printed, its memory now, and how to end it. */
async function hold(path) {
  const script = join(root, 'bench', 'loading', 'process.mjs')
  const child = spawn(process.execPath, [script, path, options.threads], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  const text = await new Promise((resolve, reject) => {
    child.stdout.once('data', (data) => resolve(data.toString()))
    ended.then((status) => reject(new Error(`loading ${path} ended with status ${status}`)))
  })
  return {
    ...JSON.parse(text),
    memory: () => parseSmaps(readFileSync(`/proc/${child.pid}/smaps_rollup`, 'utf8')),
    async end() {
      child.stdin.end()
      await ended
    },
  }
}

async function loadOften(path) {
  warm(path)
  const seen = []
  for (let i = 0; i < Number(options.repeats); i++) {
    const holder = await hold(path)
    seen.push(holder)
    await holder.end()
  }
  return {
    ...seen[0],
    loadMs: median(seen.map((one) => one.loadMs)),
    firstMs: median(seen.map((one) => one.firstMs)),
    peakBytes: Math.max(...seen.map((one) => one.peakBytes)),
  }
}

/** What two processes with the same file take together, in bytes. */
async function twoProcesses(path) {
  const holders = [await hold(path), await hold(path)]
  const [one, two] = holders.map((holder) => holder.memory())
  for (const holder of holders) await holder.end()
  // Pss divides a page by the number of processes that have it.
  return { together: one.pss + two.pss, shared: one.shared, own: one.private }
}

let folder
if (!options.packed) {
  folder = mkdtempSync(join(tmpdir(), 'packed-'))
  options.packed = join(folder, 'model.maestrale')
}
try {
  const size = statSync(options.model).size
  const rows = []
  const add = (metric, unit, value, note = '') =>
    rows.push({ metric, unit, value: Number(value.toPrecision(4)), note })

  const plain = await loadOften(options.model)
  add('load_gguf', 'ms', plain.loadMs)
  add('first_token_gguf', 'ms', plain.firstMs, 'from the call of loadModel')
  add('peak_gguf', 'x file', plain.peakBytes / size)

  if (!existsSync(options.packed)) {
    const started = performance.now()
    const command = [join(root, 'dist/esm/cli/main.js'), 'pack', options.model, options.packed]
    execFileSync(process.execPath, command, { stdio: ['ignore', 'ignore', 'inherit'] })
    add('pack', 'ms', performance.now() - started)
  }
  const packed = await loadOften(options.packed)
  add('packed_size', 'x file', statSync(options.packed).size / size)
  add('load_packed', 'ms', packed.loadMs)
  add('first_token_packed', 'ms', packed.firstMs, 'from the call of loadModel')
  add('peak_packed', 'x file', packed.peakBytes / size, 'mapped pages included')
  const two = await twoProcesses(options.packed)
  add('shared_packed', 'x file', two.shared / size, 'of one of two processes, smaps_rollup')
  add('private_packed', 'x file', two.own / size, 'of one of two processes, smaps_rollup')
  add('two_processes_packed', 'x file', two.together / size, 'Pss of both')

  const context = {
    ...runContext(`bench/loading/run.mjs --threads ${options.threads}`),
    isa: plain.isa,
    threads: options.threads,
    model: plain.name,
  }
  appendCsv(
    options.out,
    COLUMNS,
    rows.map((row) => ({ ...context, ...row })),
  )
  console.table(rows)
} finally {
  if (folder) rmSync(folder, { recursive: true })
}
