// SPDX-License-Identifier: Apache-2.0
// Turns bench/results/*.csv into bench/report/index.html, one file without scripts or references, and into
// the table of figures in README.md. Of repeated measurements the latest counts.
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { readCsv, root } from '../common.mjs'
import { escapeHtml, lineChart, roofline } from './charts.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const results = (name) => readCsv(join(root, 'bench', 'results', `${name}.csv`))

const TITLES = {
  prefill_512: 'prefill, 512 tokens',
  prefill_4096: 'prefill, 4096 tokens',
  decode_1: 'decode, 1 sequence',
  decode_1_at_4096: 'decode, 1 sequence, behind 4096 tokens',
  decode_8: 'decode, 8 sequences, sum',
  decode_16: 'decode, 16 sequences, sum',
  ttft_16: 'first token behind 16 tokens',
  load: 'load, file in page cache',
  peak_memory: 'peak memory, of the file size',
  abandon_1000: 'abandon a 1000-token prefill',
  loop_delay_p99_8: 'event-loop delay with 8 sequences, p99',
  loop_delay_max_8: 'event-loop delay with 8 sequences, max',
}

/** The latest row of each key, in the order in which keys first appear. */
function latest(rows, key) {
  const byKey = new Map()
  for (const row of rows) byKey.set(key(row), row)
  return [...byKey.values()]
}

/** Three significant digits, integers in full. */
function figure(text, unit = '') {
  if (text === '') return '-'
  const value = Number(text)
  const digits = Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)
  return unit ? `${digits} ${unit}` : digits
}

const peers = latest(results('peers'), (row) => row.metric)
const kernels = latest(results('kernels'), (row) => `${row.isa} ${row.type} ${row.rows}`)
const endToEnd = latest(
  results('end-to-end'),
  (row) => `${row.isa} ${row.concurrency} ${row.prompt}`,
)

/** [title, limit, node-llama-cpp, ours, ratio, percent of the limit] for each measured metric. */
function peerTable() {
  const byMetric = new Map(peers.map((row) => [row.metric, row]))
  return Object.keys(TITLES).flatMap((metric) => {
    const row = byMetric.get(metric)
    if (!row) return []
    const unit = row.unit === 'x file' ? 'x' : row.unit
    const star = row.note ? '*' : ''
    return [
      [
        TITLES[metric],
        figure(row.limit, row.limit && unit),
        figure(row.theirs, row.theirs && unit) + star,
        figure(row.ours, unit),
        row.ratio ? `${figure(row.ratio)}x` : '-',
        row.percent_of_limit && row.unit === 'tok/s' ? `${row.percent_of_limit} %` : '-',
      ],
    ]
  })
}
const PEER_COLUMNS = ['', 'limit', 'node-llama-cpp 3.22.1', 'maestrale', 'ratio', 'of the limit']

function readmeTable() {
  const table = peerTable()
  const row = table.length > 0 && peers.find((one) => one.metric in TITLES)
  if (!row) return 'No figures yet.'
  const line = (cells) => `| ${cells.join(' | ')} |`
  const commits = [...new Set(peers.filter((one) => one.metric in TITLES).map((one) => one.commit))]
  const notes = peers.filter((one) => one.note && one.metric in TITLES)
  return [
    `Mistral 7B shapes in Q4_K_M (${row.model}), ${row.threads} threads on ${row.machine}; kernel table ${row.isa}, commit ${commits.join(', ')}.`,
    'The limit is what this machine allows, probed in the same run. From `bench/results/peers.csv`.',
    '',
    line(PEER_COLUMNS),
    line(PEER_COLUMNS.map((_, i) => (i === 0 ? '---' : '---:'))),
    ...table.map(line),
    ...(notes.length > 0
      ? ['', `\\* ${notes.map((one) => `${TITLES[one.metric]}: ${one.note}`).join('; ')}.`]
      : []),
  ].join('\n')
}

function htmlTable(columns, rows) {
  const cells = (tag, values) =>
    values.map((value) => `<${tag}>${escapeHtml(value)}</${tag}>`).join('')
  const body = rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('\n')
  return `<table>\n<tr>${cells('th', columns)}</tr>\n${body}\n</table>`
}

/** Multiply-adds per second over the number of activation rows, a curve for each storage type. */
function rowCountChart(isa) {
  const rows = kernels.filter((row) => row.isa === isa && Number(row.rows) <= 64)
  const types = [...new Set(rows.map((row) => row.type))]
  const series = types.map((type) => ({
    name: type,
    points: rows
      .filter((row) => row.type === type)
      .map((row) => [Number(row.rows), Number(row.gmacs)])
      .sort((a, b) => a[0] - b[0]),
  }))
  return lineChart({ title: 'G multiply-adds/s of one core, by rows', series, logX: true })
}

/** Each type at its largest number of rows, where arithmetic and not memory decides. */
function formatTable(isa) {
  const largest = new Map()
  for (const row of kernels.filter((one) => one.isa === isa)) {
    if (Number(row.rows) >= Number(largest.get(row.type)?.rows ?? 0)) largest.set(row.type, row)
  }
  return htmlTable(
    ['type', 'rows', 'G multiply-adds/s', 'limit', 'of the limit'],
    [...largest.values()].map((row) => [
      row.type,
      row.rows,
      figure(row.gmacs),
      figure(row.limit_gmacs),
      `${row.percent_of_limit} %`,
    ]),
  )
}

/** The kernels against the machine: intensity is multiply-adds a byte of weights. */
function kernelRoofline(isa) {
  const rows = kernels.filter((row) => row.isa === isa)
  const points = rows.map((row) => ({
    x: Number(row.gmacs) / Number(row.weight_gbs),
    y: Number(row.gmacs),
    name: `${row.type}, ${row.rows} rows`,
  }))
  const compute = Math.max(...rows.map((row) => Number(row.limit_gmacs)))
  const slopes = rows.map(
    (row) => (Number(row.limit_gmacs) * Number(row.weight_gbs)) / Number(row.gmacs),
  )
  return roofline({
    title: 'Roofline of one core',
    points,
    compute,
    bandwidth: Math.min(...slopes.filter((slope) => slope > 0)),
  })
}

function page() {
  const isas = [...new Set(kernels.map((row) => row.isa))]
  const sources = [
    ...new Set(
      [...peers, ...kernels, ...endToEnd].map(
        (row) => `${row.date.slice(0, 10)}, ${row.machine}, commit ${row.commit}`,
      ),
    ),
  ]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>maestrale benchmarks</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto }
</style>
<h1>maestrale benchmarks</h1>
<p>Made by bench/report/make.mjs from the CSV files in bench/results. bench/README.md says how the figures were taken.</p>
<ul>${sources.map((source) => `<li>${escapeHtml(source)}</li>`).join('')}</ul>
<h2>Beside node-llama-cpp</h2>
${htmlTable(PEER_COLUMNS, peerTable())}
<h2>maestrale bench</h2>
${htmlTable(
  [
    'requests',
    'prompt',
    'prefill tok/s',
    'decode tok/s',
    'first token ms',
    'between tokens ms, p99',
  ],
  endToEnd.map((row) => [
    row.concurrency,
    row.prompt,
    figure(row.prefill_tok_s),
    figure(row.decode_tok_s),
    figure(row.ttft_p50_ms),
    figure(row.itl_p99_ms),
  ]),
)}
${isas
  .map(
    (isa) => `<h2>Kernels: ${escapeHtml(isa)}</h2>
${formatTable(isa)}
${rowCountChart(isa)}
${kernelRoofline(isa)}`,
  )
  .join('\n')}
</html>
`
}

writeFileSync(join(here, 'index.html'), page())
const readme = join(root, 'README.md')
const text = readFileSync(readme, 'utf8')
const marked = /(<!-- figures -->\n)[\s\S]*?(\n<!-- \/figures -->)/
if (!marked.test(text)) throw new Error('README.md has no markers for the figures')
writeFileSync(
  readme,
  text.replace(marked, (_, begin, end) => begin + readmeTable() + end),
)
