// SPDX-License-Identifier: Apache-2.0
// Rows of the CSV files as tables: a table is { columns, rows }, all cells text.
import { assess, TARGETS } from '../targets.mjs'

/** The latest row of each key, in the order in which keys first appear. */
export function latest(rows, key) {
  const byKey = new Map()
  for (const row of rows) byKey.set(key(row), row)
  return [...byKey.values()]
}

/** Three significant digits, integers in full; '-' for nothing. */
export function figure(value, unit = '') {
  if (value === '' || value === undefined) return '-'
  const number = Number(value)
  const digits =
    Math.abs(number) >= 100 ? number.toFixed(0) : Number(number.toPrecision(3)).toString()
  return unit ? `${digits} ${unit}` : digits
}

const percent = (value) => (value === '' || value === undefined ? '-' : `${value} %`)
const times = (value) => (value === '' || value === undefined ? '-' : `${figure(value)}x`)

/** Rows of peers.csv by metric, in the order of TARGETS. */
function knownPeers(peers) {
  const byMetric = new Map(peers.map((row) => [row.metric, row]))
  return Object.keys(TARGETS).flatMap((metric) => byMetric.get(metric) ?? [])
}

/** Both engines and the machine's limit. A star marks a figure that has a note. */
export function peerTable(peers) {
  return {
    columns: ['', 'limit', 'node-llama-cpp 3.22.1', 'maestrale', 'ratio', 'of the limit'],
    rows: knownPeers(peers).map((row) => {
      const { title, unit } = TARGETS[row.metric]
      return [
        title,
        figure(row.limit, row.limit && unit),
        figure(row.theirs, row.theirs && unit) + (row.note ? '*' : ''),
        figure(row.ours, unit),
        times(row.ratio),
        unit === 'tok/s' ? percent(row.percent_of_limit) : '-',
      ]
    }),
  }
}

/** What was wanted, what that predicts here, what was measured. */
export function targetTable(peers) {
  return {
    columns: ['', 'wanted', 'predicted', 'measured', 'ratio', 'ratio at the limit', ''],
    rows: knownPeers(peers).map((row) => {
      const { title, unit } = TARGETS[row.metric]
      const { wanted, predicted, possible, verdict } = assess(row)
      const most = predicted === undefined ? '-' : figure(predicted, unit)
      return [
        title,
        wanted || '-',
        most,
        figure(row.ours, unit),
        times(row.ratio),
        times(possible),
        verdict,
      ]
    }),
  }
}

/**
 * Each storage type at its largest number of rows, where arithmetic and not memory decides. The best type
 * whose peak is the same is 100 % in the last column.
 */
export function formatTable(kernels) {
  const largest = new Map()
  for (const row of kernels) {
    if (Number(row.rows) >= Number(largest.get(row.type)?.rows ?? 0)) largest.set(row.type, row)
  }
  const rows = [...largest.values()]
  const best = new Map()
  for (const { limit_gmacs: limit, gmacs } of rows)
    best.set(limit, Math.max(best.get(limit) ?? 0, Number(gmacs)))
  return {
    columns: ['type', 'rows', 'G MAC/s', 'MAC/cycle', 'peak', 'of the peak', 'of the best'],
    rows: rows.map((row) => [
      row.type,
      row.rows,
      figure(row.gmacs),
      figure(row.mac_per_cycle),
      figure(row.limit_gmacs),
      percent(row.percent_of_limit),
      percent(Math.round((100 * Number(row.gmacs)) / best.get(row.limit_gmacs))),
    ]),
  }
}

/** Files of one metric a row: loading.csv and host.csv. */
export function metricTable(rows) {
  return {
    columns: ['', 'value', ''],
    rows: rows.map((row) => [
      row.metric.replaceAll('_', ' '),
      figure(row.value, row.unit),
      row.note,
    ]),
  }
}

export function speculationTable(rows) {
  return {
    columns: [
      'requests',
      'at a time',
      'guesses',
      'n-gram',
      'right',
      'steps',
      'tok/s without',
      'with',
      'gain',
    ],
    rows: rows.map((row) => [
      row.requests,
      row.sequences,
      row.max_tokens,
      row.min_ngram,
      percent(Math.round(100 * row.right)),
      percent(Math.round(100 * row.steps)),
      figure(row.plain_tok_s),
      figure(row.tok_s),
      times(row.gain),
    ]),
  }
}

export function accuracyTable(rows) {
  return {
    columns: [
      'weights',
      'KV',
      'bits/weight',
      'KL, mean',
      'KL, max',
      'same best token',
      'perplexity',
      'change',
    ],
    rows: rows.map((row) => [
      row.type,
      row.kv_cache_type,
      figure(row.bits_per_weight),
      figure(row.kl_mean),
      figure(row.kl_max),
      percent(figure(100 * row.same_top)),
      row.perplexity,
      percent(figure(row.perplexity_percent)),
    ]),
  }
}

export function quantizedTable(rows) {
  return {
    columns: ['type', 'prompt', 'prefill tok/s', 'ratio', 'decode tok/s', 'limit', 'of the limit'],
    rows: rows.map((row) => [
      row.type,
      row.prompt,
      figure(row.prefill_tok_s),
      times(row.prefill_ratio),
      figure(row.decode_tok_s),
      figure(row.decode_limit_tok_s),
      percent(row.decode_percent_of_limit),
    ]),
  }
}

export function adapterTable(rows) {
  return {
    columns: ['adapters', 'rank', 'ms a step', 'without', 'cost', 'half of the runs', 'noise'],
    rows: rows.map((row) => [
      row.adapters,
      row.rank,
      figure(row.step_ms),
      figure(row.step_ms_without),
      percent(row.cost_percent),
      `${row.cost_low} to ${row.cost_high} %`,
      percent(row.noise_percent),
    ]),
  }
}

export function endToEndTable(rows) {
  return {
    columns: [
      'requests',
      'prompt',
      'prefill tok/s',
      'decode tok/s',
      'first token ms',
      'between tokens ms, p99',
    ],
    rows: rows.map((row) => [
      row.concurrency,
      row.prompt,
      figure(row.prefill_tok_s),
      figure(row.decode_tok_s),
      figure(row.ttft_p50_ms),
      figure(row.itl_p99_ms),
    ]),
  }
}

/** The block of figures in README.md, as Markdown. */
export function readmeFigures(peers) {
  const known = knownPeers(peers)
  if (known.length === 0) throw new Error('bench/results/peers.csv has no figures')
  const { columns, rows } = peerTable(peers)
  const [{ model, threads, machine, isa }] = known
  const commits = [...new Set(known.map((row) => row.commit))]
  const notes = known.filter((row) => row.note)
  const line = (cells) => `| ${cells.join(' | ')} |`
  return [
    `Mistral 7B shapes in Q4_K_M (${model}), ${threads} threads on ${machine}; kernel table ${isa}, commit ${commits.join(', ')}.`,
    'The limit is what this machine allows, probed in the same run. From `bench/results/peers.csv`.',
    '',
    line(columns),
    line(columns.map((_, i) => (i === 0 ? '---' : '---:'))),
    ...rows.map(line),
    ...(notes.length > 0
      ? ['', `\\* ${notes.map((row) => `${TARGETS[row.metric].title}: ${row.note}`).join('; ')}.`]
      : []),
  ].join('\n')
}

/** README.md with its figures replaced. */
export function replaceFigures(readme, figures) {
  const marked = /(<!-- figures -->\n)[\s\S]*?(\n<!-- \/figures -->)/
  if (!marked.test(readme)) throw new Error('README.md has no markers for the figures')
  return readme.replace(marked, (_, begin, end) => begin + figures + end)
}
