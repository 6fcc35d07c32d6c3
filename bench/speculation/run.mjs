// SPDX-License-Identifier: Apache-2.0
// What prompt-lookup speculation gains. Without --model: the small model's summaries and JSON. With a model of
// random weights: a chosen rate of right guesses, whose cost is that of a real model's. Texts must be the
// same. Appends to bench/results/speculation.csv.
//   node bench/speculation/run.mjs [--model 7b.gguf]
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { appendCsv, CONTEXT_COLUMNS, root, runContext } from '../common.mjs'
import { measure, warm } from '../measure.mjs'

const NUMBERS = ['guessed', 'right', 'steps', 'plain_tok_s', 'tok_s', 'gain']
const COLUMNS = [
  ...CONTEXT_COLUMNS,
  ...['requests', 'sequences', 'max_tokens', 'min_ngram', ...NUMBERS, 'elsewhere_percent'],
]

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    out: { type: 'string', default: join(root, 'bench', 'results', 'speculation.csv') },
  },
})
const small = join(root, 'models', 'mini-q4_k_m.gguf')
const path = options.model ?? small
warm(path)
const { rows, isa, name, threads, elsewhere } = measure('speculation/process.mjs', [
  path === small ? 'answers' : 'forced',
  path,
])
const command = `bench/speculation/run.mjs${options.model ? ` --model ${name}.gguf` : ''}`
const context = { ...runContext(command), isa, threads, model: name, elsewhere_percent: elsewhere }
for (const row of rows) {
  for (const field of NUMBERS) row[field] = Number(row[field].toPrecision(3))
}
appendCsv(
  options.out,
  COLUMNS,
  rows.map((row) => ({ ...context, ...row })),
)
console.table(rows)
