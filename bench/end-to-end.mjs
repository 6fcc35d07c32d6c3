// SPDX-License-Identifier: Apache-2.0
// `maestrale bench` with 1, 8 and 16 requests at the same time, appended to bench/results/end-to-end.csv.
//   node bench/end-to-end.mjs --model 7b.gguf [--prompt 128] [--gen 16] [--concurrency 1,8,16] [--threads N]
import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, root, runContext } from './common.mjs'

const COLUMNS = [
  ...CONTEXT_COLUMNS,
  ...['concurrency', 'prompt', 'gen'],
  ...['load_ms', 'prefill_tok_s', 'decode_tok_s', 'ttft_p50_ms', 'itl_p50_ms', 'itl_p99_ms'],
  ...['loop_delay_p99_ms', 'loop_delay_max_ms', 'peak_rss_bytes'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    prompt: { type: 'string', default: '128' },
    gen: { type: 'string', default: '16' },
    concurrency: { type: 'string', default: '1,8,16' },
    repeats: { type: 'string', default: '1' },
    threads: { type: 'string', default: String(availableParallelism()) },
  },
})
if (!options.model) {
  console.error(
    'usage: end-to-end.mjs --model FILE [--prompt N] [--gen N] [--concurrency N,N] [--threads N]',
  )
  process.exit(2)
}

for (const concurrency of options.concurrency.split(',')) {
  const { prompt, gen, repeats, threads } = options
  const work = ['--prompt', prompt, '--gen', gen, '--repeats', repeats, '--threads', threads]
  const args = ['bench', ...work, '--concurrency', concurrency]
  const output = execFileSync(
    process.execPath,
    [join(root, 'dist/esm/cli/main.js'), ...args, '--model', options.model, '--json'],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const report = JSON.parse(output.toString())
  const row = {
    ...runContext(`maestrale ${args.join(' ')}`),
    isa: report.isa,
    threads: report.threads,
    model: report.model,
    concurrency,
    prompt,
    gen,
    load_ms: report.loadMs,
    prefill_tok_s: report.prefillTokensPerSecond,
    decode_tok_s: report.decodeTokensPerSecond,
    ttft_p50_ms: report.ttftMs.p50,
    itl_p50_ms: report.itlMs.p50,
    itl_p99_ms: report.itlMs.p99,
    loop_delay_p99_ms: report.eventLoopDelayMs.p99,
    loop_delay_max_ms: report.eventLoopDelayMs.max,
    peak_rss_bytes: report.peakRssBytes,
  }
  appendCsv(join(root, 'bench', 'results', 'end-to-end.csv'), COLUMNS, [row])
  console.log(`${concurrency}: prefill ${row.prefill_tok_s}, decode ${row.decode_tok_s} tokens/s`)
}
