// SPDX-License-Identifier: Apache-2.0
// Turns bench/results/*.csv into bench/report/index.html and into the table of figures in README.md. Of
// repeated measurements the latest counts.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { readCsv, root } from '../common.mjs'
import { page } from './page.mjs'
import { latest, readmeFigures, replaceFigures } from './tables.mjs'

/** The latest rows of a file of results, those that agree in `fields` being repetitions. */
function results(name, ...fields) {
  const rows = readCsv(join(root, 'bench', 'results', `${name}.csv`))
  return latest(rows, (row) => fields.map((field) => row[field]).join('\n'))
}

const all = {
  peers: results('peers', 'metric'),
  rows: results('rows', 'rows'),
  kernels: results('kernels', 'isa', 'type', 'rows'),
  loading: results('loading', 'metric'),
  host: results('host', 'metric'),
  speculation: results('speculation', 'model', 'requests', 'sequences', 'max_tokens', 'min_ngram'),
  accuracy: results('accuracy', 'type', 'kv_cache_type'),
  formats: results('formats', 'type', 'prompt'),
  adapters: results('adapters', 'rank', 'adapters'),
  endToEnd: results('end-to-end', 'isa', 'concurrency', 'prompt'),
}
writeFileSync(join(dirname(fileURLToPath(import.meta.url)), 'index.html'), page(all))
const readme = join(root, 'README.md')
writeFileSync(readme, replaceFigures(readFileSync(readme, 'utf8'), readmeFigures(all.peers)))
