// SPDX-License-Identifier: Apache-2.0
// The report as one HTML page without scripts or references.
import { escapeHtml, lineChart, roofline } from './charts.mjs'
import {
  accuracyTable,
  adapterTable,
  endToEndTable,
  formatTable,
  metricTable,
  peerTable,
  quantizedTable,
  speculationTable,
  targetTable,
} from './tables.mjs'

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: 1em 0 } td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } svg { max-width: 100%; height: auto }`

export function htmlTable({ columns, rows }) {
  const cells = (tag, values) =>
    values.map((value) => `<${tag}>${escapeHtml(value ?? '')}</${tag}>`).join('')
  const body = rows.map((row) => `<tr>${cells('td', row)}</tr>`).join('\n')
  return `<table>\n<tr>${cells('th', columns)}</tr>\n${body}\n</table>`
}

/** A heading and what follows, or nothing when there are no rows for it. */
function section(title, rows, ...parts) {
  return rows.length === 0
    ? ''
    : [`<h2>${escapeHtml(title)}</h2>`, ...parts.map((part) => part())].join('\n')
}

const points = (rows, x, y) =>
  rows.map((row) => [Number(row[x]), Number(row[y])]).sort((a, b) => a[0] - b[0])

/** Decoding 1 to 64 sequences, beside what the machine allows. */
function rowsChart(rows) {
  return lineChart({
    title: 'Decoding: tokens/s in sum, by sequences at a time',
    logX: true,
    series: [
      { name: 'limit', points: points(rows, 'rows', 'limit_tok_s') },
      { name: 'maestrale', points: points(rows, 'rows', 'tok_s') },
    ],
  })
}

/** Multiply-adds per second over the number of activation rows, a curve for each storage type. */
function kernelChart(kernels) {
  const rows = kernels.filter((row) => Number(row.rows) <= 64)
  const types = [...new Set(rows.map((row) => row.type))]
  return lineChart({
    title: 'G multiply-adds/s of one core, by rows',
    logX: true,
    series: types.map((type) => ({
      name: type,
      points: points(
        rows.filter((row) => row.type === type),
        'rows',
        'gmacs',
      ),
    })),
  })
}

/** The kernels against the machine: intensity is multiply-adds a byte of weights. */
function kernelRoofline(rows) {
  const compute = Math.max(...rows.map((row) => Number(row.limit_gmacs)))
  // Where memory is the limit, that limit is bandwidth times intensity.
  const slopes = rows.map(
    (row) => (Number(row.limit_gmacs) * Number(row.weight_gbs)) / Number(row.gmacs),
  )
  return roofline({
    title: 'Roofline of one core',
    points: rows.map((row) => ({
      x: Number(row.gmacs) / Number(row.weight_gbs),
      y: Number(row.gmacs),
      name: `${row.type}, ${row.rows} rows`,
    })),
    compute,
    bandwidth: Math.max(...slopes.filter((slope) => slope > 0)),
  })
}

function sources(files) {
  const lines = files
    .flat()
    .map((row) => `${row.date.slice(0, 10)}, ${row.machine}, commit ${row.commit}`)
  return [...new Set(lines)].map((line) => `<li>${escapeHtml(line)}</li>`).join('\n')
}

/** `results`: the latest rows of each CSV file, by its name. */
export function page(results) {
  const { peers, rows, kernels, loading, host, speculation, accuracy, endToEnd } = results
  const { formats, adapters } = results
  const isas = [...new Set(kernels.map((row) => row.isa))]
  const table = (make, data) => () => htmlTable(make(data))
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>maestrale benchmarks</title>
<style>${STYLE}
</style>
<h1>maestrale benchmarks</h1>
<p>Made by bench/report/make.mjs from the CSV files in bench/results. bench/README.md says how the figures were taken.</p>
<ul>
${sources(Object.values(results))}
</ul>
${[
  section('Beside node-llama-cpp', peers, table(peerTable, peers)),
  section(
    'Targets',
    peers,
    () => `<p>Predicted is the wanted share of what this machine allows, probed in the same run; the ratio at the
limit is what 100 % of it would be of node-llama-cpp's figure.</p>`,
    table(targetTable, peers),
  ),
  section('From 1 to 64 rows', rows, () => rowsChart(rows)),
  ...isas.map((isa) => {
    const own = kernels.filter((row) => row.isa === isa)
    return section(
      `Kernels: ${isa}`,
      own,
      table(formatTable, own),
      () => kernelChart(own),
      () => kernelRoofline(own),
    )
  }),
  section('Loading and memory', loading, table(metricTable, loading)),
  section('Around the model', host, table(metricTable, host)),
  section('Speculation', speculation, table(speculationTable, speculation)),
  section('Quantised while loading', formats, table(quantizedTable, formats)),
  section('Adapters, a decode step', adapters, table(adapterTable, adapters)),
  section('Accuracy', accuracy, table(accuracyTable, accuracy)),
  section('maestrale bench', endToEnd, table(endToEndTable, endToEnd)),
]
  .filter(Boolean)
  .join('\n')}
</html>
`
}
