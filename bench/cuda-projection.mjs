// SPDX-License-Identifier: Apache-2.0
// No measurement: what a decode step of a model takes at least on GPUs, by their data sheets; writes
// bench/results/cuda-projection.csv anew. A step reads all matrices and the KV cache (f16) of each sequence once, at
// the memory's full speed, and nothing else costs anything.
//   node bench/cuda-projection.mjs --model 7b.gguf
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, commit, root } from './common.mjs'
import { decodeLimit, modelCost } from './limits.mjs'
import { inspect } from './measure.mjs'

/** Memory in GB and GB/s; G multiply-adds/s of dense tensor cores in int8, and in f16 with sums in binary32. */
const GPUS = {
  T4: { memory: 16, readGBs: 320, int8Gmacs: 65e3, f16Gmacs: 32.5e3 },
  'RTX 3090': { memory: 24, readGBs: 936, int8Gmacs: 142e3, f16Gmacs: 35.5e3 },
  'RTX 4090': { memory: 24, readGBs: 1008, int8Gmacs: 330e3, f16Gmacs: 82.5e3 },
  'A100 80 GB': { memory: 80, readGBs: 2039, int8Gmacs: 312e3, f16Gmacs: 156e3 },
  'H100 SXM': { memory: 80, readGBs: 3350, int8Gmacs: 989e3, f16Gmacs: 494e3 },
}

const COLUMNS = [
  ...['kind', 'gpu', 'memory_gb_s', 'model', 'command', 'commit', 'sequences', 'context'],
  ...['gigabytes_read', 'step_ms_at_least'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'cuda-projection.csv') },
  },
})
if (!options.model) {
  console.error('usage: cuda-projection.mjs --model FILE [--out FILE]')
  process.exit(2)
}
const model = inspect(options.model)
const cost = modelCost(model)

const rows = []
for (const [gpu, { memory, f16Gmacs, ...card }] of Object.entries(GPUS)) {
  for (const [sequences, context] of [1, 8, 32].flatMap((n) =>
    [0, 4096].map((keys) => [n, keys]),
  )) {
    const kvBytes = sequences * context * cost.nLayers * cost.nKvHeads * cost.headDim * 4
    const gigabytes = (cost.bytes + kvBytes) / 1e9
    if (gigabytes > memory) continue
    const limits = { ...card, attentionGmacs: f16Gmacs } // tensor cores attend in f16
    const tokensPerSecond = decodeLimit(cost, limits, sequences, context)
    rows.push({
      kind: 'projected; not measured',
      gpu,
      memory_gb_s: card.readGBs,
      model: model.config.name,
      command: 'bench/cuda-projection.mjs',
      commit: commit(),
      sequences,
      context,
      gigabytes_read: gigabytes.toFixed(2),
      step_ms_at_least: ((1000 * sequences) / tokensPerSecond).toFixed(2),
    })
  }
}
rmSync(options.out, { force: true })
appendCsv(options.out, COLUMNS, rows)
