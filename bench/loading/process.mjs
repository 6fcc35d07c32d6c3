// SPDX-License-Identifier: Apache-2.0
// Loads a model, computes two tokens, so that every weight has been touched, prints one JSON object, and
// stays until standard input ends. See run.mjs.
//   process.mjs MODEL THREADS [QUANTIZATION]
import { performance } from 'node:perf_hooks'

import { loadModel } from '../../dist/esm/index.js'

const [path, threads, quantization] = process.argv.slice(2)
const nodeBytes = process.memoryUsage().rss
const started = performance.now()
const model = await loadModel(path, {
  threads: Number(threads),
  contextLength: 512,
  maxSequences: 1,
  ...(quantization ? { quantization } : {}),
})
const loadMs = performance.now() - started
await model.generate([1, 300, 301], { maxNewTokens: 2, temperature: 0 })
const firstMs = performance.now() - started
const heldBytes = process.memoryUsage().rss
const peakBytes = process.resourceUsage().maxRSS * 1024
console.log(
  JSON.stringify({
    isa: model.info.isa,
    name: model.info.name,
    loadMs,
    firstMs,
    peakBytes,
    nodeBytes,
    heldBytes,
  }),
)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
