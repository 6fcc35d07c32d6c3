// SPDX-License-Identifier: Apache-2.0
// What a LoRA adapter on all seven projections costs a decode step: the same requests with and without it, in
// turn, in one process; appended to bench/results/adapters.csv. Each run with an adapter is compared with the mean of
// the runs without before and after it: `cost_percent` is the median of that, half of the runs lie between `cost_low`
// and `cost_high`. `noise_percent` is what two runs without an adapter in a row differ by, the median.
//   node bench/adapters.mjs --model 7b.gguf [--device cuda] [--rank 16] [--gen 16] [--repeats 10] [--cases bf16,f32]
//     [--threads N]
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { loadModel } from '../dist/esm/index.js'
import { appendCsv, commit, machine, root } from './common.mjs'
import { watchElsewhere } from './measure.mjs'
import { adapterCost, median } from './statistics.mjs'
import { writeAdapter } from './synthetic/adapter.mjs'

const COLUMNS = [
  ...['date', 'machine', 'isa', 'threads', 'model', 'command', 'commit', 'rank', 'adapters'],
  ...['sequences', 'adapter_bytes', 'step_ms', 'step_ms_without'],
  ...['cost_percent', 'cost_low', 'cost_high', 'noise_percent', 'repeats', 'elsewhere_percent'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    rank: { type: 'string', default: '16' },
    gen: { type: 'string', default: '16' },
    repeats: { type: 'string', default: '10' },
    cases: { type: 'string' },
    threads: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: join(root, 'bench', 'results', 'adapters.csv') },
  },
})
if (!options.model) {
  console.error(
    'usage: adapters.mjs --model FILE [--device NAME] [--rank N] [--gen N] [--repeats N] [--cases NAME,...] [--threads N] [--out FILE]',
  )
  process.exit(2)
}
const [rank, gen, repeats, threads] = ['rank', 'gen', 'repeats', 'threads'].map((name) =>
  Number(options[name]),
)

/** The adapter of each sequence that runs at the same time; undefined for none. */
const CASES = {
  bf16: ['bf16'],
  f32: ['f32'],
  'bf16-8': Array(8).fill('bf16'),
  'mixed-8': [undefined, 'bf16', 'f32', 'other', 'bf16', 'f32', 'other', undefined],
}

/** Milliseconds of a decode step with these sequences. */
async function step(model, adapters) {
  const runs = adapters.map((adapter, i) =>
    model.generate([1, 10 + i, 20, 30], {
      maxNewTokens: gen,
      temperature: 0,
      logitBias: { [model.tokenizer.eosId]: -Infinity },
      ...(adapter === undefined ? {} : { adapter }),
    }),
  )
  const results = await Promise.all(runs)
  return median(results.map(({ timings }) => timings.decodeMs / (gen - 1)))
}

const names = options.cases?.split(',') ?? Object.keys(CASES)
const used = new Set(names.flatMap((name) => CASES[name]))
const directory = mkdtempSync(join(tmpdir(), 'maestrale-bench-'))
const model = await loadModel(options.model, { device: options.device, threads, contextLength: 64 })
const rows = []
try {
  const sizes = {}
  for (const [name, dtype] of Object.entries({ bf16: 'BF16', f32: 'F32', other: 'BF16' })) {
    if (!used.has(name)) continue
    const path = join(directory, name)
    writeAdapter(path, model.info, { rank, dtype, seed: name.length })
    sizes[name] = (await model.loadAdapter(path, { name })).bytes
  }
  for (const name of names) {
    const adapters = CASES[name]
    const without = adapters.map(() => undefined)
    await step(model, adapters)
    const elsewhere = watchElsewhere()
    const times = { with: [], without: [await step(model, without)] }
    for (let i = 0; i < repeats; i++) {
      times.with.push(await step(model, adapters))
      times.without.push(await step(model, without))
    }
    const cost = adapterCost(times.with, times.without)
    const bytes = [...new Set(adapters)].reduce((sum, adapter) => sum + (sizes[adapter] ?? 0), 0)
    rows.push({
      date: new Date().toISOString().slice(0, 16),
      machine: machine(),
      isa: model.info.isa,
      threads,
      model: model.info.name,
      command: `bench/adapters.mjs --device ${options.device} --rank ${rank} --gen ${gen} --repeats ${repeats}`,
      commit: commit(),
      rank,
      adapters: name,
      sequences: adapters.length,
      adapter_bytes: bytes,
      step_ms: median(times.with).toFixed(2),
      step_ms_without: median(times.without).toFixed(2),
      cost_percent: cost.middle.toFixed(2),
      cost_low: cost.low.toFixed(2),
      cost_high: cost.high.toFixed(2),
      noise_percent: cost.noise.toFixed(2),
      repeats,
      elsewhere_percent: elsewhere(),
    })
  }
} finally {
  await model.dispose()
  rmSync(directory, { recursive: true })
}
appendCsv(options.out, COLUMNS, rows)
console.table(
  rows.map(({ adapters, step_ms, cost_percent, cost_low, cost_high, noise_percent }) => ({
    adapters,
    step_ms,
    cost_percent,
    cost_low,
    cost_high,
    noise_percent,
  })),
)
