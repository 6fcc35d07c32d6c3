// SPDX-License-Identifier: Apache-2.0
// From rows of CSV files to the report and the table of README.md.
import { describe, expect, test } from 'vitest'

import { lineChart, roofline } from '../../bench/report/charts.mjs'
import { htmlTable, page } from '../../bench/report/page.mjs'
import {
  figure,
  formatTable,
  latest,
  peerTable,
  readmeFigures,
  replaceFigures,
  targetTable,
} from '../../bench/report/tables.mjs'

const context = {
  date: '2026-01-02T03:04',
  machine: 'A <CPU>, 2 cores',
  isa: 'avx2',
  threads: '2',
  model: 'm',
  commit: 'abc',
}
const peer = (metric, figures) => ({
  ...context,
  metric,
  unit: 'tok/s',
  ours: '10',
  theirs: '5',
  ratio: '2',
  limit: '20',
  percent_of_limit: '50',
  note: '',
  ...figures,
})
const PEERS = [
  peer('probe_readGBs', { theirs: '', limit: '' }),
  peer('load', {
    unit: 'ms',
    ours: '1200.4',
    theirs: '2400',
    ratio: '0.5',
    limit: '',
    percent_of_limit: '',
  }),
  peer('prefill_4096', { note: 'theirs at 2048' }),
  peer('decode_1', { limit: '6', theirs: '5' }),
]
const kernel = (type, rows, gmacs, limit, gbs = 1) => ({
  ...context,
  type,
  rows: String(rows),
  gmacs: String(gmacs),
  weight_gbs: String(gbs),
  limit_gmacs: String(limit),
  percent_of_limit: String(Math.round((100 * gmacs) / limit)),
})

test('the latest row of a key counts, where the key first stood', () => {
  const rows = [
    { k: 'a', v: 1 },
    { k: 'b', v: 2 },
    { k: 'a', v: 3 },
  ]
  expect(latest(rows, (row) => row.k)).toEqual([
    { k: 'a', v: 3 },
    { k: 'b', v: 2 },
  ])
})

test('figures have three digits', () => {
  expect(figure('1234.5', 'ms')).toBe('1235 ms')
  expect(figure('12.345')).toBe('12.3')
  expect(figure('0.00012345')).toBe('0.000123')
  expect(figure('8')).toBe('8')
  expect(figure('')).toBe('-')
  expect(figure(undefined)).toBe('-')
})

describe('tables', () => {
  test('peers come in the order of the targets, without the probe', () => {
    const { rows } = peerTable(PEERS)
    expect(rows).toEqual([
      ['prefill, 4096 tokens', '20 tok/s', '5 tok/s*', '10 tok/s', '2x', '50 %'],
      ['decode, 1 sequence', '6 tok/s', '5 tok/s', '10 tok/s', '2x', '50 %'],
      ['load, file in page cache', '-', '2400 ms', '1200 ms', '0.5x', '-'],
    ])
  })

  test('targets name what the machine would allow', () => {
    const row = targetTable([peer('decode_1', { ours: '5.7', limit: '6', ratio: '1.14' })]).rows[0]
    expect(row).toEqual([
      'decode, 1 sequence',
      '1.45x, 97 % of the limit',
      '5.82 tok/s',
      '5.7 tok/s',
      '1.14x',
      '1.2x',
      'missed; ratio beyond this machine',
    ])
  })

  test('formats are compared at their most rows with the best of the same peak', () => {
    const { rows } = formatTable([
      kernel('Q4_K', 1, 50, 60),
      kernel('Q4_K', 512, 200, 240),
      kernel('Q6_K', 512, 120, 240),
      kernel('F16', 512, 30, 60),
    ])
    expect(rows.map((row) => [row[0], row[1], row.at(-1)])).toEqual([
      ['Q4_K', '512', '100 %'],
      ['Q6_K', '512', '60 %'],
      ['F16', '512', '100 %'],
    ])
  })
})

describe('README.md', () => {
  test('gets the table between its markers and keeps the rest', () => {
    const figures = readmeFigures(PEERS)
    expect(figures).toContain('| decode, 1 sequence | 6 tok/s | 5 tok/s | 10 tok/s | 2x | 50 % |')
    expect(figures).toContain('\\* prefill, 4096 tokens: theirs at 2048.')
    const readme = 'a\n<!-- figures -->\nold $1\n<!-- /figures -->\nb\n'
    expect(replaceFigures(readme, 'new $1')).toBe(
      'a\n<!-- figures -->\nnew $1\n<!-- /figures -->\nb\n',
    )
  })

  test('without markers or figures it stays as it is', () => {
    expect(() => replaceFigures('a', 'b')).toThrow('no markers')
    expect(() => readmeFigures([PEERS[0]])).toThrow('no figures')
  })
})

describe('charts', () => {
  test('a curve has its points between the axes', () => {
    const svg = lineChart({
      title: 't',
      logX: true,
      series: [
        {
          name: 's',
          points: [
            [1, 0],
            [64, 10],
          ],
        },
      ],
    })
    const [curve] = /points="([^"]+)"/.exec(svg).slice(1)
    // x: 1 at the left edge (60), 64 at the right (820 - 130); y: 0 at the bottom (420 - 40), 10 below the top.
    expect(curve).toMatch(/^60\.0,380\.0 690\.0,(\d+\.\d)$/)
    const y = Number(curve.split(',').at(-1))
    expect(y).toBeGreaterThan(36)
    expect(y).toBeLessThan(60)
    expect(lineChart({ title: 't', series: [] })).toBe('')
  })

  test('the roof bends where bandwidth reaches the arithmetic', () => {
    const svg = roofline({
      title: 't',
      compute: 100,
      bandwidth: 25,
      points: [
        { x: 1, y: 20, name: 'low' },
        { x: 16, y: 90, name: 'high' },
      ],
    })
    const roof = [
      ...svg.matchAll(
        /<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" stroke="#222"/g,
      ),
    ]
    expect(roof).toHaveLength(2)
    const [slope, flat] = roof.map((match) => match.slice(1).map(Number))
    expect(slope.slice(2)).toEqual(flat.slice(0, 2))
    expect(flat[1]).toBe(flat[3])
    // The ridge is at 100 / 25 = 4, half-way between the points on a logarithmic axis.
    const circles = [...svg.matchAll(/cx="([\d.]+)"/g)].map((match) => Number(match[1]))
    expect(flat[0]).toBeCloseTo((circles[0] + circles[1]) / 2, 0)
    expect(svg).toContain('<title>high</title>')
  })
})

describe('page', () => {
  const none = {
    peers: [],
    rows: [],
    kernels: [],
    loading: [],
    host: [],
    speculation: [],
    accuracy: [],
    endToEnd: [],
    formats: [],
    adapters: [],
  }

  test('text is escaped', () => {
    expect(htmlTable({ columns: ['a&b'], rows: [['<i>']] })).toContain('<td>&lt;i&gt;</td>')
    expect(page({ ...none, peers: PEERS })).toContain('A &lt;CPU&gt;, 2 cores')
  })

  test('only what was measured has a section', () => {
    const html = page({
      ...none,
      peers: PEERS,
      kernels: [kernel('Q4_K', 1, 50, 60, 10), kernel('Q4_K', 64, 200, 240, 1)],
    })
    const titles = [...html.matchAll(/<h2>(.*?)<\/h2>/g)].map((match) => match[1])
    expect(titles).toEqual(['Beside node-llama-cpp', 'Targets', 'Kernels: avx2'])
    expect(html.match(/<svg/g)).toHaveLength(2)
    expect(html).not.toContain('NaN')
    expect(html).not.toContain('undefined')
  })
})
